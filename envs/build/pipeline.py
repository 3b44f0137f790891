"""From a log to a world: encoders, users in disjoint parts, and a card that says what to believe."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recloop.encoders.base.errors import WorldError
from recloop.encoders.base.storage import read_json, write_json
from recloop.encoders.state.encoder import StateEncoder
from recloop.encoders.text.encoder import TextVectors, default_cache
from recloop.envs.build.card import card_of, patterns_on_card, reward_on_card
from recloop.envs.build.columns import item_columns
from recloop.envs.build.encoders import (
    EncoderConfig,
    Workshop,
    behavior_patterns,
    carried_vectors,
    chosen_graph,
    graph_knowledge,
    report_on_graph,
    state_encoder,
    text_model,
    text_vectors,
)
from recloop.envs.build.examination import examined, with_support
from recloop.envs.build.groups import item_groups
from recloop.envs.build.instructions import NO_READER, with_instruction
from recloop.envs.build.stages import StageCache
from recloop.envs.interaction.reward_terms import kept_reward
from recloop.envs.logs.compile import compile_sequences
from recloop.envs.logs.profiles import profile_features
from recloop.envs.logs.schema import Columns, LoggedBehavior
from recloop.envs.logs.sequences import Ints, Sequences
from recloop.envs.logs.splits import split_by_user
from recloop.envs.users.contract import UserSimulator
from recloop.envs.users.fitted import REPEATS, Family, FitConfig, FitReport, fit_ensemble
from recloop.envs.users.registry import load_simulator, save_simulator
from recloop.envs.world.patterns import first_part
from recloop.envs.world.world import PARTS, Catalogue, UserTable, World, named_or_none

_FEWEST_USERS = 8
JUDGES: Mapping[str, Family] = {"judge-attentive": "attentive", "judge": "trees"}
"""The judges by name and their families; neither is that of the users whom policies are trained in."""


@dataclass(frozen=True)
class BuildConfig:
    """How a log becomes a world.

    Args:
        slate_size: K, items shown at once.
        max_steps: time limit of an episode in slates.
        history_length: H, consumed items that an observation holds.
        shown_length: L, slates that an observation holds.
        fit: share of the users that training users are fitted on.
        tune: share that the validation simulator is fitted on.
        judge: share that the judges are fitted on; the rest is evaluated on.
        seed: of the parts and of every fit.
        encoder: text, graph and state.
        users: how users are fitted.
        members: bootstrapped fits in the ensemble of the training users.
        judge_members: the same for each judge.
        reward: what a step is worth, such as purchase=1 click=0.1 leaving=-0.5, or a dotted path my_module:my_reward;
            default the consumption.
        examine: whether the users are held against the log's other users (`evidence.fidelity`) and the logging policies
            replayed in them (`evidence.replay`), for the card.
        device: where fits run.
        cache: folder of what is kept between builds; default `$RECLOOP_CACHE` or `~/.cache/recloop`.
        use_cache: False neither reads nor writes it.
    """

    slate_size: int = 10
    max_steps: int = 20
    history_length: int = 50
    shown_length: int = 10
    fit: float = 0.45
    tune: float = 0.15
    judge: float = 0.2
    seed: int = 0
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    users: FitConfig = field(default_factory=FitConfig)
    members: int = 3
    judge_members: int = 1
    reward: tuple[str, ...] = ()
    examine: bool = True
    device: str = "cpu"
    cache: Path | None = None
    use_cache: bool = True

    def __post_init__(self) -> None:
        shares = (self.fit, self.tune, self.judge)
        if min(shares) <= 0 or sum(shares) >= 1:
            raise WorldError(f"shares fit={self.fit}, tune={self.tune}, judge={self.judge} must be > 0 and sum below 1")
        for name in ("slate_size", "max_steps", "history_length", "shown_length", "members", "judge_members"):
            if getattr(self, name) < 1:
                raise WorldError(f"{name}={getattr(self, name)}; it must be at least 1")


def build_world(
    log: LoggedBehavior,
    config: BuildConfig | None = None,
    *,
    cleaning: Mapping[str, Any] | None = None,
    text: TextVectors | None = None,
    progress: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> World:
    """Learn a world from a clean log.

    Text and graph vectors see items alone. The state encoder and the user model are fitted on the train users, the
    validation simulator on a part of them of its own, two judges on the judge users: four families. Training users are
    small networks on what users felt, or recurrent where nobody knows what was shown. Policies that plan do so on
    recurrent users, who score a whole catalogue at once: with exposures they are a model of the training users, not
    these themselves. The evaluated users' behaviour is only where their episodes start from: nothing is fitted on it.

    Args:
        cleaning: the report of the cleaning, for the card.
        text: replaces the text encoder of the config.
        progress: progress bars.
        say: gets a line a stage.

    Raises:
        WorldError: for fewer than 8 users, a slate larger than the catalogue, or instructions without a language model.
        RecloopError: for a reward that the log does not have, before anything is fitted.
    """
    config = config or BuildConfig()
    if config.encoder.instruction and config.encoder.text == "none" and text is None:
        raise WorldError(NO_READER)  # now, not after all fits
    log, source = chosen_graph(log, config.encoder, say)
    sequences, item_ids, user_ids = compile_sequences(log)
    _check(config, log, sequences)
    columns = item_columns(log.items)
    reward = kept_reward(config.reward or {log.consumption.name: 1.0}, log.signals, columns, len(log.items))
    cache = (config.cache or default_cache()) if config.use_cache else None
    stages = StageCache(cache / "stages" if cache else None)
    shop = Workshop(config.seed, config.device, cache, stages, progress)
    part = split_users(sequences.users, (config.fit, config.tune, config.judge), config.seed)
    rows = {name: (part == i).nonzero()[:, 0].numpy() for i, name in enumerate(PARTS)}
    train = np.sort(np.concatenate([rows["fit"], rows["tune"]]))
    profile, profile_names, left_out = profile_features(log.users, train)

    carried, coverage = carried_vectors(log, config.encoder)
    say("item texts")
    words = text_vectors(log, config.encoder, shop, text, say)
    sources = carried if words is None else {"text": words, **carried}
    say("knowledge graph")
    knowledge = graph_knowledge(log, config.encoder, shop)
    graph = report_on_graph(log, config.encoder, shop)
    say("state encoder, on the train users")
    encoder = state_encoder(log, sequences.subset(train), sources, knowledge, config.encoder, shop)

    say("segments and topics, on the train users")
    patterns = behavior_patterns(log, sequences, train, encoder.item_vectors, config.encoder, config.seed)
    if config.encoder.pattern_features and patterns is not None:
        sequences = replace(sequences, profile_prefix=first_part(sequences))
        extra, extra_names = patterns.features(sequences, encoder.item_vectors)
        profile, profile_names = torch.cat([profile, extra], dim=1), (*profile_names, *extra_names)

    groups, group_names = item_groups(log, encoder.item_vectors, config.seed)

    def fitted(family: Family, users: str, members: int) -> tuple[UserSimulator, FitReport]:
        say(f"{family} users, on part '{users}'")
        return _users(log, family, members, sequences, rows[users], encoder, profile, groups, config, stages, progress)

    planned, training_report = fitted("recurrent", "fit", config.members)
    training = planned
    if sequences.slates is not None:
        training, training_report = fitted("network", "fit", config.members)
    validation, validation_report = fitted("factor", "tune", 1)
    judges = {name: fitted(family, "judge", config.judge_members) for name, family in JUDGES.items()}
    reports = {"train": training_report, "validation": validation_report}
    reports |= {name: report for name, (_, report) in judges.items()}
    everyone = np.arange(sequences.users)
    history, feedback = sequences.last(everyone, config.history_length)
    shown, answers = sequences.last_slates(everyone, config.shown_length, config.slate_size)
    repeats = sequences.repeat_rate(train)
    card = card_of(log, sequences, encoder, coverage, reports, repeats, cleaning or {}, rows)
    if sequences.slates is not None and config.slate_size > sequences.slates.items.shape[1]:
        most = sequences.slates.items.shape[1]
        beyond = (
            f"Slates of the log hold at most {most} items; what a slate of {config.slate_size} does is not claimed."
        )
        card = replace(card, not_claimed=(*card.not_claimed, beyond))
    if left_out:
        unused = f"Columns of the users table that tell users apart one by one, or nothing: {', '.join(left_out)}."
        card = replace(card, not_claimed=(*card.not_claimed, f"{unused} They are no features of users."))
    if config.reward:
        card = reward_on_card(card, reward)
    if source is not None:
        card = source.on_card(card)
    if graph is not None:
        card = graph.on_card(card)
    if patterns is not None:
        card = patterns_on_card(card, patterns, config.encoder.pattern_features)
    say("support of the log")
    world = World(
        name=log.name,
        signals=log.signals,
        catalogue=Catalogue(
            ids=item_ids,
            titles=tuple(log.items[Columns.title].astype(str)),
            texts=tuple(log.items[Columns.text].astype(str)),
            popularity=torch.from_numpy(sequences.popularity(train)),
            groups=groups,
            group_names=group_names,
            entities=named_or_none(log.items[Columns.entity]) if Columns.entity in log.items else (),
            columns=columns,
        ),
        users=UserTable(user_ids, part, profile, profile_names, history, feedback, shown, answers),
        sequences=sequences,
        state_encoder=encoder,
        simulators={
            "train": training,
            "validation": validation,
            **{name: users for name, (users, _) in judges.items()},
        },
        user_model=planned,
        slate_size=config.slate_size,
        max_steps=config.max_steps,
        consumes_twice=repeats >= REPEATS,
        reward=reward,
        card=card,
        knowledge=log.knowledge,
        patterns=patterns,
    )
    if config.encoder.instruction:
        say("instructions")
        world = with_instruction(world, log, text_model(config.encoder, shop, text), train, config.seed, progress)
    world = with_support(world)
    return examined(world, seed=config.seed, device=config.device, say=say) if config.examine else world


def split_users(users: int, shares: tuple[float, float, float], seed: int) -> Tensor:
    """Disjoint parts by a seeded shuffle: int64 (users,) index into `PARTS`; `shares` leave the last part the rest."""
    split = split_by_user(users, dict(zip(PARTS, (*shares, 1 - sum(shares)), strict=True)), seed)
    part = torch.empty(users, dtype=torch.int64)
    for number, name in enumerate(PARTS):
        part[torch.from_numpy(split[name])] = number
    return part


def _check(config: BuildConfig, log: LoggedBehavior, sequences: Sequences) -> None:
    if sequences.users < _FEWEST_USERS:
        raise WorldError(
            f"{log.name} has {sequences.users} user(s); a world needs {_FEWEST_USERS} or more to hold some out"
        )
    if config.slate_size > sequences.catalogue_size:
        raise WorldError(
            f"slate_size={config.slate_size} is larger than the catalogue ({sequences.catalogue_size} items); "
            "lower --slate-size or pass a larger catalogue"
        )


def _users(
    log: LoggedBehavior,
    family: Family,
    members: int,
    sequences: Sequences,
    users: Ints,
    encoder: StateEncoder,
    profile: Tensor,
    groups: Tensor,
    config: BuildConfig,
    stages: StageCache,
    progress: bool,
) -> tuple[UserSimulator, FitReport]:
    settings = replace(config.users, seed=config.seed, history=config.history_length, lead=config.shown_length)
    mine = sequences.subset(users)
    inputs: dict[str, Any] = {
        "items": mine.items,
        "offsets": mine.offsets,
        "feedback": mine.feedback,
        "vectors": encoder.item_vectors,
        "profile": profile[users],
        "groups": groups,
        "settings": [family, members, asdict(settings), [vars(signal) for signal in log.signals]],
    }
    if mine.slates is not None:
        inputs.update({f"slates.{name}": value for name, value in mine.slates.arrays().items()})
    if mine.profile_prefix is not None:
        inputs["told"] = mine.profile_prefix

    def save(made: tuple[UserSimulator, FitReport], folder: Path) -> None:
        save_simulator(made[0], folder / "users")
        write_json(folder / "report.json", asdict(made[1]))

    def load(folder: Path) -> tuple[UserSimulator, FitReport]:
        facts = read_json(folder / "report.json")
        report = FitReport(**{**facts, "learned": tuple(facts["learned"]), "assumed": tuple(facts["assumed"])})
        return load_simulator(folder / "users"), report

    return stages.keep(
        f"users-{family}",
        inputs,
        lambda: fit_ensemble(
            family,
            mine,
            np.arange(mine.users),
            encoder.item_vectors,
            profile[users],
            log.signals,
            members=members,
            groups=groups,
            config=settings,
            device=config.device,
            progress=progress,
        ),
        save,
        load,
    )
