"""What a user says they want, as a vector that retrieves the items meant."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from recloop.encoders.base.artifact import Artifact
from recloop.encoders.base.errors import EncoderError, unknown_name
from recloop.encoders.text.encoder import HashedText, TextEncoder, TextVectors

LONGEST = 100
"""Words of an instruction that are read; the rest is cut off and counted."""
_LOADERS: Mapping[str, Any] = {"TextEncoder": TextEncoder, "HashedText": HashedText}
_OWN = (
    "a about after all an and any are as at be but by can film films find for from good has have i in is it its "
    "like made me more my not of on one or please show so some something than that the their this to was want "
    "watch what where which who whose with would you"
)
_OTHERS = {
    "German": "aber als auf aus bei das dem den der des die ein eine einen einer etwas film filme für ich ist mit "
    "möchte nach nicht oder über um und von wie zu zum zur",
    "French": "avec aux ce cette comme dans de des du elle en est et film il je la le les mais ou par pas pour que "
    "qui quelque sur un une veux voir à années",
    "Spanish": "al algo años como con de del el en es la las lo los más mi no o para película películas pero por "
    "que quiero se sobre su un una y ver",
    "Italian": "al anni che come con da degli dei del della di e film gli ho il in la le lo ma non per più qualcosa "
    "si sono su un una uno voglio vedere",
    "Portuguese": "algo anos ao com como da das de do dos e em filme filmes mais mas não na no o os ou para por que "
    "quero sobre um uma ver",
    "Dutch": "als bij dat de deze die een en film films het iets ik in is met naar niet of om op over te uit van "
    "voor wat wil zien",
}
_ENGLISH = frozenset(_OWN.split())
_FOREIGN = {language: frozenset(words.split()) for language, words in _OTHERS.items()}
_NEGATION = re.compile(r"\b(without|except|but not|anything but|nothing with|no more)\b", re.IGNORECASE)
"""Words before what is *not* wanted."""
_WORD = re.compile(r"[^\W\d_]+")
_LETTERS = 0.3
"""Share of letters outside ASCII from which on a text is taken for another script."""


class InstructionWarning(UserWarning):
    """An instruction was answered, but perhaps not understood."""


class InstructionEncoder(Artifact):
    """Free text as a vector u = phi^T h + b, near (by inner product) the content vectors of the items meant.

    h (t,) is the frozen language model's vector of the text; phi (t, d) and b (d,) are a head trained alone, and
    the items' side is a table, by `recloop.encoders.instruction.fit.fit_instruction_encoder`. A blank text is the
    zero vector: no wish. u has length 1 otherwise.

    Retrieval by two towers (Huang et al. 2013, DSSM). Differences: the text tower is a frozen language model and a
    linear map, and pairs are generated from what is known of items, not from clicks.

    Args:
        text: the language model that h is from.
        weight: float32 (t, d), phi.
        bias: float32 (d,), b.
        table: float32 (N+1, d) items' content vectors of length 1; row N, the empty place, is zero.
        facts: how it was fitted, as JSON: its `InstructionConfig` as `config`, its `InstructionReport` as `report`.

    Attributes:
        dim: d, length of a vector.
        truncated: instructions cut to their first `LONGEST` words since this object was made.

    Raises:
        EncoderError: where tensors do not fit each other or hold NaN.
    """

    artifact_file = "instruction"

    def __init__(
        self,
        text: TextVectors,
        weight: Tensor,
        bias: Tensor,
        table: Tensor,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        if not weight.dim() == table.dim() == 2 or not weight.shape[1] == len(bias) == table.shape[1]:
            shapes = ", ".join(str(tuple(part.shape)) for part in (weight, bias, table))
            raise EncoderError(
                f"head, bias and item table of an instruction encoder are {shapes}; (t, d), (d,), (N+1, d)"
            )
        if not all(bool(torch.isfinite(part).all()) for part in (weight, bias, table)):
            raise EncoderError("head, bias or item table of an instruction encoder holds NaN or infinity; fit it anew")
        self.text, self.weight, self.bias, self.table = text, weight, bias, table
        self.facts = dict(facts or {})
        self.dim, self.truncated = int(weight.shape[1]), 0
        self._check_text()

    @torch.no_grad()
    def encode(self, texts: Sequence[str], progress: bool = False) -> Tensor:
        """Texts -> float32 (B, d) on the CPU, of length 1; a blank text is a zero row.

        A text that seems to be in another language than English is answered with an `InstructionWarning`, and so is
        one cut to its first `LONGEST` words, and one that says what is not wanted ("a horror film without horror").

        Raises:
            EncoderError: where the language model is not there, or gives NaN.
        """
        words = [text.split() for text in texts]
        long = sum(len(own) > LONGEST for own in words)
        if long:
            self.truncated += long
            warnings.warn(
                f"{long} instruction(s) longer than {LONGEST} words were cut there", InstructionWarning, stacklevel=2
            )
        read = [" ".join(own[:LONGEST]) for own in words]
        for text in read:
            reason = other_language(text)
            if reason:
                warnings.warn(
                    f"the instruction '{text[:40]}' does not seem to be English ({reason}); the answer may miss "
                    "what is meant, say it in English",
                    InstructionWarning,
                    stacklevel=2,
                )
            if denied := _NEGATION.search(text):
                warnings.warn(
                    f"the instruction '{text[:40]}' says what is not wanted ('{denied.group()}'), which is not "
                    "understood and may be taken for a wish; say what is wanted",
                    InstructionWarning,
                    stacklevel=2,
                )
        hidden = self.text.encode(read, progress, keep=False)  # (B, t); what people say is not kept on disk
        if not bool(torch.isfinite(hidden).all()):
            raise EncoderError(
                "the language model gave NaN or infinity for an instruction; take float32 or another model"
            )
        blank = torch.tensor([not text for text in read], dtype=torch.bool)
        return F.normalize(hidden @ self.weight + self.bias, dim=1).masked_fill(blank.unsqueeze(1), 0.0)

    def scores(self, texts: Sequence[str]) -> Tensor:
        """How well every item answers each text: float32 (B, N) in [-1, 1]; 0 for a blank one."""
        return self.scores_of(self.encode(texts))

    def scores_of(self, vectors: Tensor) -> Tensor:
        """The same from what `encode` gave, (B, d), on its device."""
        return vectors @ self.table[:-1].to(vectors.device).T

    def stored_facts(self) -> dict[str, Any]:
        """How the language model is found; `EncoderError` where it is not there, or cannot be read back."""
        kind = type(self.text).__name__
        if isinstance(self.text, _Absent):
            raise EncoderError(f"instructions cannot be saved: {self.text.error}")
        if not isinstance(self.text, TextEncoder | HashedText):
            raise EncoderError(f"text vectors of class {kind} cannot be saved; use {' or '.join(_LOADERS)}")
        return {"text": kind, "facts": self.facts}

    def stored_tensors(self) -> dict[str, Tensor]:
        """Head and table."""
        return {"weight": self.weight, "bias": self.bias, "table": self.table}

    def write(self, folder: Path) -> None:
        """Write the settings of the language model beside."""
        super().write(folder)
        self.text.save(folder)  # type: ignore[attr-defined]

    @classmethod
    def restored(
        cls, facts: dict[str, Any], tensors: dict[str, Tensor], folder: Path, **context: Any
    ) -> InstructionEncoder:
        """Where the language model is not there the encoder still loads, and `encode` says so."""
        if facts["text"] not in _LOADERS:
            raise EncoderError(
                f"{folder / 'instruction.json'}: {unknown_name('text encoder', facts['text'], _LOADERS)}"
            )
        text: TextVectors
        try:
            text = _LOADERS[facts["text"]].load(folder)
        except EncoderError as error:
            text = _Absent(len(tensors["weight"]), error)
        return cls(text, tensors["weight"], tensors["bias"], tensors["table"], facts["facts"])

    def _check_text(self) -> None:
        if self.text.dim != len(self.weight):
            raise EncoderError(
                f"the language model's vectors have {self.text.dim} numbers, the instruction head was fitted on "
                f"{len(self.weight)}; bring that model back, or build anew"
            )


class _Absent:
    """Stands where the language model could not be loaded: worlds and policies open without it."""

    def __init__(self, dim: int, error: EncoderError) -> None:
        self.dim, self.error = dim, error

    def encode(self, texts: Sequence[str], progress: bool = False, keep: bool = True) -> Tensor:
        """Blank texts need no model; for others says what is missing."""
        if any(text.strip() for text in texts):
            raise EncoderError(f"instructions cannot be read: {self.error}")
        return torch.zeros(len(texts), self.dim)


def other_language(text: str) -> str | None:
    """Why a text seems not to be English, or None.

    Letters outside ASCII in plenty tell of another script; otherwise the small words of six languages are counted
    against those of English. Names alone and short wishes ("Amélie", "film noir") pass; a language that is
    not among the six and is written in Latin letters passes too.

    >>> other_language("a funny film from the nineties") is None
    True
    >>> other_language("ein lustiger Film aus den Neunzigern"), other_language("смешной фильм")
    ('its small words look German', '100 % of its letters are not ASCII')
    """
    words = [word.lower() for word in _WORD.findall(text)]
    letters = "".join(words)
    if not letters:
        return None
    strange = sum(not letter.isascii() for letter in letters) / len(letters)
    if strange > _LETTERS and len(letters) > 3:
        return f"{strange:.0%} of its letters are not ASCII".replace("%", " %")
    english = sum(word in _ENGLISH for word in words)
    counts = {language: sum(word in known for word in words) for language, known in _FOREIGN.items()}
    best = max(counts, key=lambda language: counts[language])
    if counts[best] >= 2 and counts[best] > english and counts[best] >= len(words) / 3:
        return f"its small words look {best}"
    return None
