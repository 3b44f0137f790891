"""LightGCN and KGIN: items and users as sums over their neighbours in the graph of who consumed what, and of facts."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recloop.agents.collaborative.history import HistoryPolicy, checked, consumption_matrix, sparse, with_empty_place
from recloop.agents.policy import FitOptions
from recloop.encoders.base.errors import PolicyError
from recloop.encoders.base.fit import FitLoop, Pass, fit, shuffled
from recloop.envs.simulation.core import checked_device
from recloop.envs.world.world import World


@dataclass(frozen=True)
class LightGCNConfig:
    """Sizes and training.

    Args:
        dim: d, length of an item's embedding.
        hops: times that items are smoothed over the users who consumed them, and these over their items.
        epochs: passes over the consumptions.
        batch: consumptions a gradient step.
        learning_rate: of Adam.
        regularisation: L2 penalty of the embeddings a step touches.
    """

    dim: int = 64
    hops: int = 1
    epochs: int = 40
    batch: int = 2048
    learning_rate: float = 5e-3
    regularisation: float = 1e-4

    def __post_init__(self) -> None:
        checked(self, ("dim", "epochs", "batch", "learning_rate"), ("hops", "regularisation"), "lightgcn")


class ItemGraph(nn.Module):
    """Embeddings of items, smoothed over the graph.

    Args:
        edges: int64 (2, M) user and item of each consumption, sorted by both.
        users: U.
        items: N.
        config: sizes.
        seed: of the starting embeddings; no global generator is touched.
        facts: int64 (3, F) item, relation and entity of what a knowledge graph says of the items; None without one.
    """

    edges: Tensor
    weights: Tensor
    by_item: Tensor
    facts: Tensor
    share: Tensor

    def __init__(
        self, edges: Tensor, users: int, items: int, config: LightGCNConfig, seed: int, facts: Tensor | None = None
    ) -> None:
        super().__init__()
        self.config, self.shape = config, (users, items)
        degrees = [torch.bincount(side, minlength=size) for side, size in zip(edges, self.shape, strict=True)]
        both = degrees[0][edges[0]] * degrees[1][edges[1]]
        self.register_buffer("edges", edges)
        self.register_buffer("weights", both.to(torch.float32).rsqrt())  # (M,) 1 / sqrt(d_u d_i)
        self.register_buffer("by_item", edges[1].argsort(stable=True))
        generator = torch.Generator().manual_seed(seed)
        self.embeddings = nn.Parameter(0.1 * torch.randn(items, config.dim, generator=generator))
        self.register_buffer("facts", torch.zeros(3, 0, dtype=torch.int64) if facts is None else facts)
        self.register_buffer("share", 1.0 / torch.bincount(self.facts[0], minlength=items)[self.facts[0]].unsqueeze(1))
        _, relations, entities = (0, 0, 0) if facts is None else (int(side.max()) + 1 for side in facts)
        self.entities = nn.Parameter(0.1 * torch.randn(entities, config.dim, generator=generator))
        self.relations = nn.Parameter(torch.ones(relations, config.dim))

    def forward(self) -> tuple[Tensor, Tensor]:
        """Vectors of users (U, d) and items (N, d)."""
        to_users = sparse(self.edges, self.weights, self.shape)
        to_items = sparse(self.edges.flip(0)[:, self.by_item], self.weights[self.by_item], self.shape[::-1])
        layer = self.told()
        items = layer
        for _ in range(self.config.hops):
            layer = torch.sparse.mm(to_items, torch.sparse.mm(to_users, layer))
            items = items + layer
        items = items / (self.config.hops + 1)
        return torch.sparse.mm(to_users, items), items

    def told(self) -> Tensor:
        """The items' own embeddings (N, d), each with the mean of what is told of it, relation times entity."""
        item, relation, entity = self.facts
        told = self.share * self.relations[relation] * self.entities[entity]
        return self.embeddings.index_add(0, item, told)


class LightGCNPolicy(HistoryPolicy):
    """Shows the k items whose smoothed embeddings have the highest inner product with the user's (He, Deng, Wang, Li,
    Zhang and Wang 2020).

    Embeddings are propagated along the graph of train users and items with 1 / sqrt(d_u d_i), layers are averaged, and
    the pairwise loss of BPR is descended. Differences: users have no embedding of their own, so that only every other
    layer is not zero, and a live user is what the items of the history propagate, sum of z_i / sqrt(|h| d_i); while
    it is trained, the item asked for is left out of the user's vector, as it will be when it is asked for.

    Args:
        tables: `items` float32 (N, d) smoothed embeddings z; `sent` (N+1, d) z_i / sqrt(d_i), row N zero; `counts`.
        settings: how.
    """

    name = "lightgcn"
    kind = "lightgcn"
    paper: ClassVar[str] = "He et al. 2020"
    config_class: ClassVar[type[LightGCNConfig]] = LightGCNConfig

    @classmethod
    def fit(cls, world: World, options: FitOptions) -> Self:
        """Train on the train users' graph; `options.steps` are passes over its edges."""
        config = options.over(LightGCNConfig(), cls.name, "epochs")
        matrix = consumption_matrix(world)
        edges = torch.from_numpy(np.stack(matrix.nonzero()).astype(np.int64))
        facts = cls._facts(world)
        graph = ItemGraph(edges, matrix.shape[0], matrix.shape[1], config, options.seed, facts)
        graph.to(checked_device(options.device))
        _fit(graph, config, options, cls.name)
        with torch.no_grad():
            items = graph()[1].cpu()
        degrees = torch.from_numpy(matrix.getnnz(0)).clamp(min=1).unsqueeze(1)
        tables = {"items": items, "sent": with_empty_place(items / degrees.sqrt())}
        return cls({**tables, "counts": world.catalogue.popularity}, config)

    @classmethod
    def _facts(cls, world: World) -> Tensor | None:
        """What a knowledge graph says of the items, as `ItemGraph` takes it."""
        return None

    def _scores(self, items: Tensor) -> Tensor:
        count = (items < len(self.tables["items"])).sum(1, keepdim=True).clamp(min=1)
        users = F.embedding_bag(items, self.tables["sent"], mode="sum") / count.sqrt()
        return users @ self.tables["items"].T


class KGINPolicy(LightGCNPolicy):
    """LightGCN over items that are told of by a knowledge graph, relation by relation (KGIN; Wang, Huang, Wang, Yuan,
    Liu, He and Chua 2021).

    An item starts as its own embedding plus the mean, over the triples whose head it is, of relation * entity, number
    by number: entities that items share bring them together, by as much as their relation turns out to matter. So an
    item that nobody consumed yet has a place. Differences: one hop of the graph, and no intents, which would need
    embeddings of users; the rest is `lightgcn`'s.
    """

    name = "kgin"
    kind = "kgin"
    paper: ClassVar[str] = "Wang et al. 2021"
    needs: ClassVar[tuple[str, ...]] = ("knowledge",)

    @classmethod
    def _facts(cls, world: World) -> Tensor:
        graph = world.knowledge
        if graph is None:
            raise PolicyError(f"world '{world.name}' has no knowledge graph; build it with one, or take lightgcn")
        told = defaultdict(list)
        for head, relation, tail in graph.triples.tolist():
            told[head].append((relation, tail))
        rows = graph.entity_rows(list(world.catalogue.entities)).tolist()
        facts = [(item, *fact) for item, row in enumerate(rows) for fact in told.get(row, ())]
        if not facts:
            raise PolicyError(f"the knowledge graph of world '{world.name}' says nothing of its items; take lightgcn")
        item, relation, entity = torch.tensor(facts).T
        return torch.stack([item, *(side.unique(return_inverse=True)[1] for side in (relation, entity))])


def _fit(graph: ItemGraph, config: LightGCNConfig, options: FitOptions, name: str) -> None:
    """BPR over all edges; negatives are drawn uniformly from the catalogue, for each edge anew in every pass."""
    generator = torch.Generator().manual_seed(options.seed)
    count, n = graph.edges.shape[1], graph.shape[1]

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for rows in shuffled(count, config.batch, generator):
            yield rows, torch.randint(n, (len(rows),), generator=generator)

    def loss(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, float]:
        rows, others = (part.to(graph.edges.device) for part in batch)
        (owner, item), (users, items) = graph.edges[:, rows], graph()
        mine = users[owner] - graph.weights[rows].unsqueeze(1) * items[item]
        ahead = (mine * (items[item] - items[others])).sum(1)
        touched = graph.embeddings[item].square().sum() + graph.embeddings[others].square().sum()
        return F.softplus(-ahead).mean() + config.regularisation * touched / len(rows), float(len(rows))

    def log(one: Pass) -> None:
        if options.log is not None:
            options.log("train/loss", one.loss, one.number + 1)

    loop = FitLoop(passes=config.epochs, learning_rate=config.learning_rate, optimizer="adam", schedule="cosine")
    fit(graph, loop, batches, loss, log=log, name=name, progress=options.progress, error=PolicyError)
