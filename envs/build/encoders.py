"""From a log to vectors: its items' texts, its knowledge graph, and the encoder of its users' states."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from recloop.encoders.base.errors import EncoderError, unknown_name
from recloop.encoders.base.storage import read_json, read_tensors, write_json, write_tensors
from recloop.encoders.items.encoder import ItemKnowledge
from recloop.encoders.items.fusion import FUSIONS, Fusion
from recloop.encoders.items.modalities import ModalityReport, modality_paths, read_modality
from recloop.encoders.knowledge.embeddings import item_knowledge
from recloop.encoders.knowledge.triple_report import OnBadLines
from recloop.encoders.knowledge.triple_scores import Model
from recloop.encoders.state.batches import NextItemConfig
from recloop.encoders.state.config import SequenceModel, StateEncoderConfig
from recloop.encoders.state.encoder import StateEncoder
from recloop.encoders.state.fitting import fit_state_encoder
from recloop.encoders.text.encoder import Pooling, TextVectors
from recloop.encoders.text.models import DEFAULT_MODEL
from recloop.envs.build.knowledge import GraphReport, SourceReport, graph_report, with_knowledge_source
from recloop.envs.build.stages import StageCache
from recloop.envs.build.text import NumberType, TextModel, history_reader, item_text_vectors, reader_facts
from recloop.envs.logs.schema import Columns, LoggedBehavior
from recloop.envs.logs.sequences import Ints, Sequences
from recloop.envs.world.patterns import CHOOSE, PatternConfig, Patterns, fit_patterns, item_attributes
from recloop.envs.world.world import named_or_none


@dataclass(frozen=True)
class EncoderConfig:
    """What turns items and behaviour into vectors.

    Args:
        text: model of the items' text: a name, a folder, `hashed` (words, no model) or `none`.
        text_pooling: a text's vector is the `mean` of its tokens, the first (`cls`) or the `last` (decoders).
        text_layer: hidden layer that is read, 0 the embeddings, -1 the last.
        text_prefix: instruction in front of every text; never cut away.
        text_max_length: tokens of a text that are read; how many texts were longer is said.
        text_dtype: `auto` is bfloat16 where the processor computes in it.
        text_revision: branch, tag or commit of a name on the hub.
        behavior: how the state reads a history: `items`, one after the other by their vectors; or `text`, in addition
            the whole as one text through the text model, which costs.
        behavior_refresh: steps in the loop, and items in fitting, after which a history's text is read anew.
        kg: embedding of the knowledge graph, or `none`: the encoders do not read it.
        kg_dim: length of an entity vector.
        kg_epochs: passes over the triples.
        kg_source: triples in place of the log's own: a file (`.kg .tsv .csv .parquet .nt .nt.gz .nt.bz2`), or a store
            (`ladybug:PATH`, `bolt://HOST`); items are linked to it by title and year.
        kg_query: what to select of it, as text or file: SPARQL for a dump, Cypher for a store.
        kg_bad_lines: what a line of it that cannot be read does: `error` stops, `skip` leaves it out and counts it.
        kg_relations: names of the relations that are read; default all.
        kg_report: whether the card says how well the embedding predicts held-out triples; costs a second fit.
        modalities: tables of vectors that items carry, as NAME=PATH, such as image=posters.npz audio=clips.safetensors
            (`recloop.encoders.items.modalities`).
        bad_vectors: what a vector with NaN or infinity does: `error` stops, `drop` leaves it out.
        item_fusion: how an item's text, entity and carried vectors become one: `concat`, `gated` or `attention`.
        sequence: what predicts the next: `gru`, `lstm`, or the `mean` of what was consumed.
        patterns: attention-pooled patterns of the behaviour; 0 without.
        fusion: whether what is predicted attends to the relations of the graph.
        segments: segments of users; 0 chooses their number by silhouette, -1 looks for none.
        topics: topics of behaviour; 0 looks for none.
        pattern_features: whether a user's segment and topics, by the first part of their logged history, are features
            of the user; users are then fitted on, and held against, what comes after it alone.
        instruction: whether the world reads instructions ("a funny film from the nineties"), see
            `recloop.encoders.instruction.encoder`.
        dim: d, length of item and user vectors.
        next_item: how the state encoder is fitted.
    """

    text: str = DEFAULT_MODEL
    text_pooling: Pooling = "mean"
    text_layer: int = -1
    text_prefix: str = ""
    text_max_length: int = 256
    text_dtype: NumberType = "auto"
    text_revision: str | None = None
    behavior: Literal["items", "text"] = "items"
    behavior_refresh: int = 10
    kg: Model | Literal["none"] = "distmult"
    kg_dim: int = 64
    kg_epochs: int = 60
    kg_source: str | None = None
    kg_query: str | None = None
    kg_bad_lines: OnBadLines = "error"
    kg_relations: tuple[str, ...] = ()
    kg_report: bool = False
    modalities: tuple[str, ...] = ()
    bad_vectors: Literal["error", "drop"] = "error"
    item_fusion: Fusion = "concat"
    sequence: SequenceModel = "gru"
    patterns: int = 4
    fusion: bool = True
    segments: int = CHOOSE
    topics: int = 8
    pattern_features: bool = False
    instruction: bool = False
    dim: int = 64
    next_item: NextItemConfig = field(default_factory=NextItemConfig)

    def __post_init__(self) -> None:
        modality_paths(self.modalities)
        if self.kg_query and not self.kg_source:
            raise EncoderError("kg_query selects from kg_source, which is not given; name a dump or a store")
        PatternConfig(self.segments, self.topics)
        if self.behavior not in ("items", "text"):
            raise EncoderError(unknown_name("behavior", self.behavior, ("items", "text")))
        if self.item_fusion not in FUSIONS:
            raise EncoderError(unknown_name("item fusion", self.item_fusion, FUSIONS))

    @property
    def language_model(self) -> TextModel:
        """The language model and how it reads."""
        names = ("pooling", "layer", "prefix", "max_length", "dtype", "revision")
        return TextModel(self.text, **{name: getattr(self, f"text_{name}") for name in names})

    @property
    def state(self) -> StateEncoderConfig:
        """The parts of the state encoder."""
        return StateEncoderConfig(dim=self.dim, sequence=self.sequence, patterns=self.patterns, fusion=self.fusion)


@dataclass(frozen=True)
class Workshop:
    """Where fits run and what is kept of them.

    Args:
        seed: of every fit.
        device: where fits run.
        cache: folder of text vectors; None keeps none.
        stages: what was fitted before.
        progress: progress bars.
    """

    seed: int
    device: str
    cache: Path | None
    stages: StageCache
    progress: bool


def text_model(config: EncoderConfig, shop: Workshop, text: TextVectors | None = None) -> TextVectors | None:
    """The language model of the config, or `text` in its place; None without one."""
    return config.language_model.make(shop.device, shop.cache) if text is None else text


def text_vectors(
    log: LoggedBehavior,
    config: EncoderConfig,
    shop: Workshop,
    text: TextVectors | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Tensor | None:
    """What the items' texts say, float32 (N, t); None without a text model. `text` replaces the config's model.

    `say` gets a line where texts were cut.
    """
    return item_text_vectors(log, text_model(config, shop, text), shop.progress, say)


def carried_vectors(log: LoggedBehavior, config: EncoderConfig) -> tuple[dict[str, Tensor], dict[str, ModalityReport]]:
    """The vectors that items carry, float32 (N, width) by name, zero where an item has none; and what was found."""
    ids = [str(item) for item in log.items.index]
    paths = modality_paths(config.modalities)
    read = {name: read_modality(path, ids, config.bad_vectors) for name, path in paths.items()}
    return {name: table for name, (table, _) in read.items()}, {name: report for name, (_, report) in read.items()}


def chosen_graph(
    log: LoggedBehavior, config: EncoderConfig, say: Callable[[str], None]
) -> tuple[LoggedBehavior, SourceReport | None]:
    """The log with the graph of `kg_source` in place of its own, and what was linked; of the relations wanted alone."""
    report = None
    if config.kg_source:
        say("knowledge graph from elsewhere")
        log, report = with_knowledge_source(log, config.kg_source, config.kg_query, config.kg_bad_lines, say)
    if config.kg_relations:
        if log.knowledge is None:
            raise EncoderError("kg_relations chooses from the log's knowledge graph, and it has none; name a kg_source")
        log = replace(log, knowledge=log.knowledge.only(config.kg_relations))
    return log, report


def graph_knowledge(log: LoggedBehavior, config: EncoderConfig, shop: Workshop) -> ItemKnowledge | None:
    """What the log's knowledge graph says of its items; None without a graph, or without links to it."""
    graph = log.knowledge
    if graph is None or Columns.entity not in log.items or config.kg == "none":
        return None
    entities = graph.entity_rows([name if isinstance(name, str) else None for name in log.items[Columns.entity]])
    settings = (config.kg, config.kg_dim, config.kg_epochs, shop.seed)

    def load(folder: Path) -> ItemKnowledge | None:
        relations = read_json(folder / "relations.json")
        return ItemKnowledge(tuple(relations), **read_tensors(folder / "items.safetensors")) if relations else None

    def save(made: ItemKnowledge | None, folder: Path) -> None:
        write_json(folder / "relations.json", list(made.relations) if made else [])
        if made:
            write_tensors(folder / "items.safetensors", {"tables": made.tables})

    return shop.stages.keep(
        "knowledge",
        {"triples": graph.triples, "relations": graph.relations, "entities": entities, "settings": settings},
        lambda: item_knowledge(graph, entities, *settings, progress=shop.progress),
        save,
        load,
    )


def report_on_graph(log: LoggedBehavior, config: EncoderConfig, shop: Workshop) -> GraphReport | None:
    """How well the embedding predicts held-out triples; None unless `kg_report` asks, or where there is no graph."""
    if not config.kg_report or config.kg == "none" or log.knowledge is None:
        return None
    return graph_report(log.knowledge, config.kg, config.kg_dim, config.kg_epochs, shop.seed, shop.progress)


def state_encoder(
    log: LoggedBehavior,
    train: Sequences,
    sources: Mapping[str, Tensor],
    knowledge: ItemKnowledge | None,
    config: EncoderConfig,
    shop: Workshop,
) -> StateEncoder:
    """The encoder of users' states, fitted on the behaviour `train`; `sources` are the items' vectors by name."""
    bounds = [signal.bounds for signal in log.signals]
    none = torch.zeros(0)
    behavior = None
    if config.behavior == "text":
        model = config.language_model.make(shop.device, shop.cache, truncate="start")
        behavior = history_reader(log, model, config.behavior_refresh)
    inputs = {
        **{f"source {name}": rows for name, rows in sources.items()},
        "tables": none if knowledge is None else knowledge.tables,
        "items": train.items,
        "offsets": train.offsets,
        "feedback": train.feedback,
        "settings": [
            bounds,
            list(sources),
            asdict(config.state),
            asdict(config.next_item),
            config.item_fusion,
            shop.seed,
            train.catalogue_size,
            None if behavior is None else reader_facts(behavior),
        ],
    }

    def make() -> StateEncoder:
        return fit_state_encoder(
            sources,
            knowledge,
            train.items,
            train.offsets,
            train.feedback,
            bounds,
            config=config.state,
            seed=shop.seed,
            catalogue_size=train.catalogue_size,
            fitting=config.next_item,
            item_fusion=config.item_fusion,
            device=shop.device,
            progress=shop.progress,
            behavior=behavior,
        )

    return shop.stages.keep("state", inputs, make, lambda made, to: made.save(to / "encoder"), _load_encoder)


def behavior_patterns(
    log: LoggedBehavior, sequences: Sequences, train: Ints, item_vectors: Tensor, config: EncoderConfig, seed: int
) -> Patterns | None:
    """Segments and topics that the behaviour of the users `train` shows; None where neither is wanted."""
    entities = named_or_none(log.items[Columns.entity]) if Columns.entity in log.items else ()
    return fit_patterns(
        sequences,
        train,
        item_vectors,
        list(log.items[Columns.title].astype(str)),
        list(log.items[Columns.text].fillna("").astype(str)),
        item_attributes(log.knowledge, entities) if entities else None,
        PatternConfig(config.segments, config.topics, seed),
    )


def _load_encoder(folder: Path) -> StateEncoder:
    return StateEncoder.load(folder / "encoder")
