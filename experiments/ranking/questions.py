"""What a ranking is held against: a moment in the log of each evaluate user, and what the user took from then on.

Policies learned from the train users alone, so nothing here cuts their logs: whom one ranks for was never met. But all
users live in the same time, and what is popular later is known to a policy that ranks for an earlier moment.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from recloop.encoders.base.errors import RecloopError
from recloop.envs.interaction.observation import DEFAULT_KEYS, Observation
from recloop.envs.interaction.response import Past
from recloop.envs.interaction.seen import LoggedItems
from recloop.envs.logs.sequences import Ints, Sequences, rows_of
from recloop.envs.world.world import World

SplitName = Literal["leave-one-out", "time", "cold-users", "cold-items"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)
KEYS = (*DEFAULT_KEYS, "action_mask")
"""What policies see. Not the users' wishes: these were made from the whole log."""


@dataclass(frozen=True)
class Cuts:
    """Where logs are cut.

    Args:
        held_out: share of each user's consumptions, the newest ones, that `time` and `cold-items` ask for, in (0, 1).
        cold_at_most: an item is cold where the train users consumed it at most so often.
    """

    held_out: float = 0.2
    cold_at_most: int = 5

    def __post_init__(self) -> None:
        if not 0 < self.held_out < 1:
            raise RecloopError(f"--held-out {self.held_out} of a user's log; choose a share above 0 and below 1")
        if self.cold_at_most < 0:
            raise RecloopError(f"--cold-at-most {self.cold_at_most}; an item can be cold at 0 or more consumptions")


@dataclass(frozen=True)
class RankingTask:
    """Q users, what is known of each, and what each took from then on.

    Args:
        split: its name.
        users: int64 (Q,) rows of the users table, rising.
        known: int64 (Q,) how many of a user's oldest consumptions are known.
        targets: int64 (Q, T) what each took, each item once, N behind the last.
        choice: bool (N,) what there is to choose from; None for the whole catalogue.
        told: what is asked, in words.
    """

    split: SplitName
    users: Ints
    known: Ints
    targets: Tensor
    choice: Tensor | None
    told: str

    def observe(self, world: World, rows: slice) -> Observation:
        """What a policy sees of some of the users, on the CPU: as in the loop, had their logs ended here.

        `state` is that of all that is known, `history` its newest H. Masked is what was consumed before, where the
        world's users consume nothing twice, and what is not to choose from. The world's rules are not kept.
        """
        users, known = self.users[rows], self.known[rows]
        sequences, spec, encoder = world.sequences, world.spec(), world.state_encoder
        whole, feedback = sequences.last(users, max(int(known.max(initial=0)), spec.history_length), known)
        slates = _slates_before(sequences, users, known)
        shown, answers = sequences.last_slates(users, spec.shown_length, spec.slate_size, slates)
        profile = world.users.profile[torch.from_numpy(users)]
        device = encoder.item_vectors.device  # a core shares the encoder and may have moved it
        with torch.no_grad():
            vector = encoder.vector(encoder.start(*(table.to(device) for table in (profile, whole, feedback)))).cpu()
        owner = torch.arange(len(users)).repeat_interleave(whole.shape[1])
        consumed = LoggedItems.of(len(users), spec.catalogue_size, owner, whole.flatten())
        zeros = torch.zeros(len(users), dtype=torch.int64)
        past = Past(
            history=whole[:, -spec.history_length :],
            feedback=feedback[:, -spec.history_length :],
            shown=shown,
            answers=answers,
            step=zeros,
            days_away=zeros.to(torch.float32),
            seen=None if world.consumes_twice else consumed.seen(capacity=0),
        )
        observation = spec.observe(past, vector, profile, KEYS)
        if self.choice is not None:
            observation["action_mask"] = observation["action_mask"] & self.choice
        return observation


def ranking_task(world: World, split: SplitName, cuts: Cuts | None = None) -> RankingTask:
    """The questions of one split to the `evaluate` users.

    | split | known | asked for |
    |---|---|---|
    | `leave-one-out` | all but the last item | the last item |
    | `time` | the older part of each user's log | its newest share `held_out`: no moment cuts all users |
    | `cold-users` | the profile alone | all that the user took |
    | `cold-items` | as `time` | what is cold of it, among the cold items |

    What features of users tell of is never asked for (`Sequences.profile_prefix`), nor what was taken before in a
    world where nobody consumes an item twice. Users of whom nothing is left to ask are left out.

    Raises:
        RecloopError: where nothing is left to ask.
    """
    cuts, sequences, n = cuts or Cuts(), world.sequences, len(world.catalogue)
    users = world.users.rows("evaluate").numpy()
    lengths, told = sequences.lengths[users], sequences.consumed_after(users, sequences.first_scored[users])
    share, choice = f"the newest {cuts.held_out:.0%} of each user's items", None
    match split:
        case "leave-one-out":
            known, words = lengths - 1, "the last item of each user, from all before it"
            asked = known >= np.maximum(told, 1)
        case "cold-users":
            known, words = np.zeros_like(lengths), "all items of each user, from the profile alone"
            asked = lengths > told
        case "time" | "cold-items":
            known = np.maximum(np.floor(lengths * (1 - cuts.held_out)).astype(np.int64), np.maximum(told, 1))
            asked, words = lengths > known, f"{share}, from those before"
    if split == "cold-items":
        choice = world.catalogue.popularity <= cuts.cold_at_most
        words = (
            f"what is cold of {share}, among the {int(choice.sum())} items that train users consumed at most "
            f"{cuts.cold_at_most} times"
        )
    users, known, begin = users[asked], known[asked], np.maximum(known, told)[asked]
    pairs = _pairs(sequences, users, begin, sequences.lengths[users])
    if not world.consumes_twice:
        pairs = np.setdiff1d(pairs, _pairs(sequences, users, np.zeros_like(known), known))
    if choice is not None:
        pairs = pairs[choice.numpy()[pairs % n]]
    if not len(pairs):
        raise RecloopError(_nothing(world, split, cuts))
    place, counts = np.unique(pairs // n, return_counts=True)
    targets = np.full((len(place), int(counts.max())), n, dtype=np.int64)
    targets[np.arange(targets.shape[1]) < counts[:, None]] = pairs % n
    return RankingTask(split, users[place], known[place], torch.from_numpy(targets), choice, words)


def _pairs(sequences: Sequences, users: Ints, begin: Ints, end: Ints) -> Ints:
    """Each user's consumptions from `begin` up to but without `end`, all (Q,), as place x N + item, each once."""
    limits = np.stack([sequences.offsets[users] + begin, sequences.offsets[users] + end], axis=1).ravel()
    rows = rows_of(limits, 2 * np.arange(len(users)))
    place = np.repeat(np.arange(len(users)), end - begin)
    pairs: Ints = np.unique(place * sequences.catalogue_size + sequences.items[rows])
    return pairs


def _slates_before(sequences: Sequences, users: Ints, known: Ints) -> Ints:
    """How many slates of each user were over before the consumption after the `known` ones, int64 (Q,): none where
    nothing is known, all where nothing comes after."""
    slates = sequences.slates
    if slates is None or not len(slates.items):
        return np.zeros_like(known)
    all_slates, room = np.diff(slates.offsets), int(sequences.lengths.max()) + 1
    owner = np.repeat(np.arange(sequences.users), all_slates)
    begun = np.searchsorted(owner * room + slates.consumed_before, users * room + known, side="right")
    before = np.maximum(begun - 1 - slates.offsets[users], 0)
    return np.where(known == 0, 0, np.where(known < sequences.lengths[users], before, all_slates[users]))


def _nothing(world: World, split: SplitName, cuts: Cuts) -> str:
    """Why there is nothing to ask, and the way out."""
    users = len(world.users.rows("evaluate"))
    if not users:
        return f"world '{world.name}' has no evaluate users; build it with smaller shares for the other parts"
    share = f"the newest {cuts.held_out:.0%} of their items"
    why = {
        "leave-one-out": "took two items, the last of them a new one; give a larger log",
        "time": f"took something new in {share}; raise --held-out or give a larger log",
        "cold-users": "took anything; give a larger log",
        "cold-items": f"took an item in {share} that train users consumed at most {cuts.cold_at_most} times; raise "
        "--cold-at-most or --held-out",
    }
    return f"--split {split}: none of the {users} evaluate users of world '{world.name}' {why[split]}"
