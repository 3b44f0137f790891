"""Whether a text seems to be English: cheap, and only a guess."""

from __future__ import annotations

import re

_OWN = (
    "a about after all an and any are as at be but by can find for from good has have i in is it its like made me more "
    "my not of on one or please show so some something than that the their this to was want watch what where which who "
    "whose with would you"
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
_WORD = re.compile(r"[^\W\d_]+")
_LETTERS = 0.3
"""Share of letters outside ASCII from which on a text is taken for another script."""


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
