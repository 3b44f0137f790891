"""What a world says of its items, as vectors that sequence models may build on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from recloop.agents.sequence.config import ItemSource
from recloop.encoders.base.digests import digest_of_value
from recloop.encoders.base.errors import PolicyError
from recloop.encoders.text.encoder import TextEncoder
from recloop.encoders.text.models import DEFAULT_MODEL, model_fingerprint, model_folder
from recloop.envs.world.patterns import item_attributes
from recloop.envs.world.world import World

WIDTH = 128
"""Most coordinates of what the knowledge graph says."""


def content_of(world: World, sources: Sequence[ItemSource], device: str = "cpu") -> dict[str, Tensor]:
    """Vectors of the items, float32 (N, w) by source but `ids`; a zero row says nothing.

    `text` are the default language model's vectors of the catalogue's texts, from its cache where they are; `knowledge`
    is a truncated SVD of which entities each item is tied to, rare ones counting more (latent semantic analysis,
    Deerwester et al. 1990); `world` are the world's own item vectors, which saw the train users' behaviour.

    Raises:
        PolicyError: where the world has no such source.
    """
    catalogue = world.catalogue
    makers: dict[str, Callable[[], Tensor]] = {
        "text": lambda: text_content(catalogue.texts, device),
        "knowledge": lambda: knowledge_content(item_attributes(world.knowledge, catalogue.entities)),
        "world": lambda: world.item_vectors[:-1].detach().cpu(),
    }
    return {source: makers[source]() for source in sources if source != "ids"}


def text_content(texts: Sequence[str], device: str = "cpu") -> Tensor:
    """What the items' texts say, float32 (N, w), less what all of them share."""
    if len(set(texts)) < 2:
        raise PolicyError("the items have no texts that differ; leave text out of items")
    rows = TextEncoder(device=device).encode(list(texts)).cpu()
    said = (rows != 0).any(1, keepdim=True)
    return (rows - rows.sum(0) / said.sum()) * said


def knowledge_content(attributes: Sequence[Sequence[str]]) -> Tensor:
    """What the graph says of N items, float32 (N, w), from the entities each is tied to."""
    from scipy.sparse import csr_array
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfTransformer

    names, columns = np.unique(list(chain.from_iterable(attributes)), return_inverse=True)
    if len(names) < 2:
        raise PolicyError("no graph says anything of the items; leave knowledge out of items")
    offsets = np.cumsum([0, *map(len, attributes)])
    tied = csr_array((np.ones(len(columns)), columns, offsets), shape=(len(attributes), len(names)))
    svd = TruncatedSVD(min(WIDTH, len(names) - 1, len(attributes) - 1), random_state=0)
    return torch.from_numpy(svd.fit_transform(TfidfTransformer().fit_transform(tied))).float()


@dataclass(frozen=True)
class TextsRead:
    """Which language model read the texts of items that are nothing else, and what came of it.

    Args:
        language_model: fingerprint of its files.
        table: digest of the items' vectors; others mean that something else was learned of single items since.
    """

    language_model: str
    table: str

    @classmethod
    def of(cls, table: Tensor) -> "TextsRead":
        """By the default language model, into `table` (N+1, d)."""
        return cls(model_fingerprint(model_folder(DEFAULT_MODEL), []), digest_of_value(table.detach().cpu()))

    def check(self, table: Tensor, name: str) -> None:
        """`PolicyError` where the items of `table` are no longer their texts alone, or another model reads now."""
        now = TextsRead.of(table)
        if now.language_model != self.language_model:
            raise PolicyError(
                f"the texts of policy '{name}' were read by another language model (fingerprint "
                f"{self.language_model[:12]}; {DEFAULT_MODEL} here has {now.language_model[:12]}); bring that model "
                "back, or train it anew"
            )
        if now.table != self.table:
            raise PolicyError(
                f"the items of policy '{name}' were tuned one by one after its texts were read; transfer it as it was "
                "before that, and tune it in the other world"
            )
