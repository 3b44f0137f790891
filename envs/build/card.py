"""The card of a world learned from a log: what was learned, assumed, and is not claimed."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from recloop.encoders.items.modalities import ModalityReport
from recloop.encoders.state.encoder import StateEncoder
from recloop.envs.interaction.reward_terms import KeptReward
from recloop.envs.logs.schema import Columns, LoggedBehavior, SessionEnd, Times
from recloop.envs.logs.sequences import Ints, Sequences
from recloop.envs.users.fitted import REPEATS, FitReport
from recloop.envs.world.patterns import FEATURES_FROM, FEATURES_WARNING, Patterns
from recloop.envs.world.world import Card

READING = "reading"
"""Key among a card's figures: what the reader made of every column, and its sentences."""


def card_of(
    log: LoggedBehavior,
    sequences: Sequences,
    encoder: StateEncoder,
    coverage: Mapping[str, ModalityReport],
    reports: Mapping[str, FitReport],
    repeats: float,
    cleaning: Mapping[str, Any],
    rows: Mapping[str, Ints],
) -> Card:
    """The card, from the log, the vectors that its items carry (`coverage` by modality), what was fitted on it
    (`reports` by simulator), and the users of each part (`rows`)."""
    learned, figures = [], _counts(log, sequences, rows)
    for name, modality in coverage.items():
        learned.append(f"Item vectors '{name}': {modality}.")
        figures[f"items_with_{name}"] = modality.found
    figures["repeat_rate"] = repeats
    fit = encoder.report
    if fit is not None:
        learned.append(
            f"State encoder: next item on held-out train users, Recall@10 {fit.recall_at_10:.3f} against "
            f"{fit.popularity_recall_at_10:.3f} by popularity."
        )
        figures["state_recall_at_10"] = fit.recall_at_10
    for name, report in reports.items():
        learned += [f"{name}: {sentence}" for sentence in report.learned]
        figures[f"users_{name}"] = {signal: dict(values) for signal, values in report.figures.items()}
        if report.inputs:
            figures[f"inputs_{name}"] = dict(report.inputs)
    assumed = list(dict.fromkeys(s for report in reports.values() for s in report.assumed))
    again = "may be consumed again" if repeats >= REPEATS else "are never shown again once consumed"
    learned.append(f"{repeats:.1%} of the log's consumptions repeat an item, so items {again} in this world.")
    figures[READING] = {**log.reading.as_dict(), "notes": list(log.notes)}
    return Card(tuple(learned), tuple(assumed), not_claimed(log), figures, dict(cleaning))


def reward_on_card(card: Card, reward: KeptReward) -> Card:
    """The card of a world whose reward a person chose."""
    chosen = "The reward of a step was chosen: "
    others = (line for line in card.assumed if not line.startswith(chosen))
    return replace(card, assumed=(*others, f"{chosen}{reward.in_words()}."))


def _counts(log: LoggedBehavior, sequences: Sequences, rows: Mapping[str, Ints]) -> dict[str, Any]:
    graph = log.knowledge
    return {
        "users": sequences.users,
        "items": sequences.catalogue_size,
        "consumptions": len(sequences.items),
        "slates": 0 if sequences.slates is None else len(sequences.slates.items),
        "triples": 0 if graph is None else len(graph.triples),
        "linked_items": int(log.items[Columns.entity].notna().sum()) if Columns.entity in log.items else 0,
        **{f"users_in_{name}": len(users) for name, users in rows.items()},
    }


def not_claimed(log: LoggedBehavior) -> tuple[str, ...]:
    """What the log cannot support, in plain sentences."""
    said = []
    if log.times is Times.entry:
        said.append(
            "Times are entry times (when things were typed in): nothing is claimed about boredom, satiation, session "
            "rhythm, leaving or return."
        )
    if log.times is Times.none:
        said.append("The log has no times: nothing is claimed about time, boredom, session rhythm, leaving or return.")
    if not log.has_exposures:
        said.append(
            "The log has no exposures: the rate at which shown items are consumed, position effects and the "
            "effect of a slate's other items are not claimed."
        )
    else:
        if Columns.slate in log.interactions and Columns.position not in log.interactions:
            said.append("The log has no positions: what a place in the slate does is not claimed.")
        if not _somebody_left(log):
            left = "Nobody is known to have left a session of the log: when people leave and return is not claimed."
            said.append(left)
    if len(log.signals) == 1:
        said.append("The log holds no ratings or other feedback: how much users liked an item is not claimed.")
    return tuple(said)


def _somebody_left(log: LoggedBehavior) -> bool:
    rows = log.interactions
    return Columns.session_end in rows and bool((rows[Columns.session_end] == SessionEnd.left).any())


def patterns_on_card(card: Card, patterns: Patterns, as_features: bool) -> Card:
    """The card with what was found in the users' behaviour; `as_features` where the users' features hold it."""
    said, warning = ((FEATURES_FROM,), (FEATURES_WARNING,)) if as_features else ((), ())
    learned = (*card.learned, *patterns.sentences(), *said)
    return replace(card, learned=learned, not_claimed=(*card.not_claimed, *warning))
