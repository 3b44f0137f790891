"""The core: ends, last observations, the past against a plain loop, and randomness by lanes."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from recloop.encoders.base.errors import DeviceError, RecloopError
from recloop.encoders.state.behavior import ItemBehavior
from recloop.encoders.state.encoder import StateEncoder
from recloop.envs.interaction.observation import DEFAULT_KEYS
from recloop.envs.interaction.transition import Transition
from recloop.envs.simulation.core import Core
from recloop.envs.world.world import World

N, K = 40, 4


def slates(steps: int, lanes: int, seed: int = 0) -> Tensor:
    """int64 (steps, lanes, K): random slates without repeats."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(steps, lanes, N, generator=generator).topk(K, dim=2).indices


def run(core: Core, shown: Tensor) -> list[Transition]:
    return [core.step(slate) for slate in shown]


def test_terminated_only_when_left_and_truncated_at_the_limit_and_never_both(world: World) -> None:
    core = Core(world, batch=64, seed=1)
    terminated = truncated = 0
    for slate in slates(40, 64):
        step = core.past.step
        end = core.step(slate)
        assert torch.equal(end.terminated, end.response.left)
        assert torch.equal(end.truncated, (step + 1 == world.max_steps) & ~end.response.left)
        assert end.finished.tolist() == (end.terminated | end.truncated).nonzero()[:, 0].tolist()
        assert (end.final is None) == (len(end.finished) == 0)
        assert core.past.step[end.finished].tolist() == [0] * len(end.finished)
        terminated += int(end.terminated.sum())
        truncated += int(end.truncated.sum())
    assert terminated > 50
    assert truncated > 50


def test_with_two_sessions_only_the_second_goodbye_is_for_good(world_maker: Callable[..., World]) -> None:
    core = Core(world_maker(leave=0.3, max_steps=50), batch=32, sessions=2)
    goodbyes = torch.zeros(32, dtype=torch.int64)
    for slate in slates(60, 32):
        end = core.step(slate)
        goodbyes += end.response.left.long()
        assert torch.equal(end.terminated, goodbyes == 2)
        back = end.response.left & ~end.terminated
        away = core.past.days_away
        assert bool((away[back] == 2.0).all())
        assert bool((away[~back] == 0.0).all())
        goodbyes[end.terminated | end.truncated] = 0


def test_the_last_observation_is_what_a_world_that_goes_on_would_show(
    world_maker: Callable[..., World],
) -> None:
    """Users who never leave and are not cut off, under the same luck, show what comes after the last step."""
    lanes, steps = 48, 6
    core = Core(world_maker(leave=0.1, max_steps=steps), batch=lanes, seed=3)
    endless = Core(world_maker(leave=0.0, max_steps=1000), batch=lanes, seed=3)
    first = torch.ones(lanes, dtype=torch.bool)
    checked = 0
    for slate in slates(steps, lanes):
        end = core.step(slate)
        assert not len(endless.step(slate).finished)
        there = endless.observe()
        for place, lane in enumerate(end.finished.tolist()):
            if first[lane]:
                assert end.final is not None
                for key in set(DEFAULT_KEYS) - {"context"}:
                    torch.testing.assert_close(end.final[key][place], there[key][lane])
                share = float(end.final["context"][place, 0])
                assert share == pytest.approx(float(endless.past.step[lane]) / steps)
                checked += 1
        first[end.finished] = False
    assert checked == lanes


class PlainLane:
    """One lane's past in lists, as one would write it without thinking of batches."""

    def __init__(self, world: World, user: int, history: int, shown: int) -> None:
        table = world.users
        self.h, self.length = history, shown
        self.history = [i for i in table.history[user].tolist() if i < N]
        logged = zip(table.history[user].tolist(), table.feedback[user].tolist(), strict=True)
        self.feedback = [answer for item, answer in logged if item < N]
        self.shown = [[N] * K for _ in range(shown)]
        self.answers = [[[0.0, 0.0] for _ in range(K)] for _ in range(shown)]
        self.seen = set(world.sequences.of(user)[0].tolist())

    def admissible(self, slate: list[int], once: bool) -> list[int]:
        places: list[int] = []
        for item in slate:
            forbidden = item in places or (once and item in self.seen)
            places.append(N if forbidden else item)
        return places

    def remember(self, slate: list[int], signals: list[list[float]]) -> None:
        for item, answer in zip(slate, signals, strict=True):
            if item < N and answer[0] == 1.0:
                self.history.append(item)
                self.feedback.append(answer)
                self.seen.add(item)
        self.shown.append(slate)
        self.answers.append(signals)

    def padded(self) -> tuple[list[int], list[list[float]]]:
        empty = max(0, self.h - len(self.history))
        feedback = [[0.0, 0.0]] * empty + self.feedback[-self.h :]
        return [N] * empty + self.history[-self.h :], feedback


@pytest.mark.parametrize("consumes_twice", [True, False])
def test_the_past_equals_a_plain_loop(world_maker: Callable[..., World], consumes_twice: bool) -> None:
    """History, feedback, shown, answers and seen, over slates that repeat and hold forbidden items."""
    world = world_maker(consumes_twice=consumes_twice, max_steps=1000, leave=0.0)
    lanes = 20
    core = Core(world, batch=lanes, users="all")
    plain = [PlainLane(world, user, 6, 3) for user in core.users.tolist()]
    generator = torch.Generator().manual_seed(5)
    invalid = 0
    for _ in range(15):
        slate = torch.randint(0, N, (lanes, K), generator=generator)
        end = core.step(slate)
        for lane, kept in enumerate(plain):
            places = kept.admissible(slate[lane].tolist(), once=not consumes_twice)
            assert end.slate[lane].tolist() == places
            assert int(end.invalid[lane]) == places.count(N)
            signals = end.response.signals[lane].tolist()
            assert all(signals[k] == [0.0, 0.0] for k in range(K) if places[k] == N)
            kept.remember(places, signals)
            history, feedback = kept.padded()
            assert core.past.history[lane].tolist() == history
            assert core.past.feedback[lane].tolist() == feedback
            assert core.past.shown[lane].tolist() == kept.shown[-3:]
            assert core.past.answers[lane].tolist() == kept.answers[-3:]
            if core.past.seen is not None:
                assert set(core.past.seen.listed()[lane].tolist()) - {N} == kept.seen
        invalid += int(end.invalid.sum())
    assert invalid > 0
    assert (core.past.seen is None) == consumes_twice


def test_the_state_is_the_encoder_over_all_that_was_consumed(world: World) -> None:
    """Also over what was consumed in the log before the H newest items that an observation holds."""
    core = Core(world, batch=8, max_steps=100)
    encoder = world.state_encoder
    users = core.users
    longest = int(world.sequences.lengths.max())
    assert longest > world.users.history.shape[1]
    state = encoder.start(world.users.profile[users], *world.sequences.last(users.numpy(), longest))
    alive = torch.ones(8, dtype=torch.bool)
    for slate in slates(5, 8):
        end = core.step(slate)
        consumed = end.response.signals[..., 0] == 1
        state = encoder.advance(state, torch.where(consumed, end.slate, N), end.response.signals)
        alive &= ~end.terminated
        torch.testing.assert_close(core.observe()["state"][alive], encoder.vector(state)[alive])
    assert bool(alive.any())


@pytest.mark.parametrize(("leave", "sessions"), [(0.0, 1), (0.3, 5)])
def test_histories_are_read_anew_when_due(world_maker: Callable[..., World], leave: float, sessions: int) -> None:
    """Every two steps, and where a user comes back; a reading in between stays as it was."""
    world = world_maker(leave=leave, max_steps=50)
    reader = ItemBehavior(torch.eye(N))
    reader.refresh = 2  # of an encoder that costs
    signals = [signal.bounds for signal in world.signals]
    encoder = StateEncoder(world.item_vectors[:-1], signals, 2, config=world.state_encoder.config, behavior=reader)
    core = Core(replace(world, state_encoder=encoder), batch=16, sessions=sessions)
    due_once = False
    for step, slate in enumerate(slates(7, 16), start=1):
        before = core.encoded.behavior
        end = core.step(slate)
        stay = ~(end.terminated | end.truncated)
        read = encoder.behavior_token(reader.encode(core.past.history, core.past.feedback))
        due = torch.full((16,), step % 2 == 0) | (core.past.days_away > 0)
        assert before is not None
        assert core.encoded.behavior is not None
        expected = torch.where(due.unsqueeze(1), read, before)
        torch.testing.assert_close(core.encoded.behavior[stay], expected[stay])
        due_once |= bool((due & stay).any())
        if end.finished.numel():
            break  # later steps count from other arrivals
    assert due_once


def test_lane_17_alone_is_lane_17_among_a_thousand(world: World) -> None:
    """Floats within 1e-5 and equal answers, over several episodes."""
    among, alone = Core(world, batch=1000, seed=11), Core(world, batch=1, seed=11)
    alone.reset(lanes=torch.tensor([17]))
    ends = 0
    for slate in slates(20, 1000):
        many, one = among.step(slate), alone.step(slate[17:18])
        assert among.users[17] == alone.users[0]
        for name in ("slate", "invalid", "terminated", "truncated"):
            assert torch.equal(getattr(many, name)[17], getattr(one, name)[0])
        assert torch.equal(many.response.signals[17], one.response.signals[0])
        assert torch.equal(many.response.given[17], one.response.given[0])
        torch.testing.assert_close(many.reward[17], one.reward[0], atol=1e-5, rtol=0)
        for key, value in among.observe().items():
            torch.testing.assert_close(value[17], alone.observe()[key][0], atol=1e-5, rtol=0)
        ends += len(one.finished)
    assert ends >= 2


def test_who_arrives_does_not_depend_on_what_other_lanes_do(world: World) -> None:
    """Lane 5 gets the same users in episodes 0, 1, 2 whatever is shown to lanes 0 to 4."""
    guests: list[list[int]] = []
    for seed in (0, 1):
        core = Core(world, batch=6, seed=9)
        shown = slates(40, 6, seed)
        shown[:, 5] = slates(40, 6, seed=99)[:, 5]
        seen = [int(core.users[5])]
        for slate in shown:
            if 5 in core.step(slate).finished.tolist():
                seen.append(int(core.users[5]))
        guests.append(seen)
    assert guests[0] == guests[1]
    assert len(guests[0]) > 4


def test_equal_seeds_give_equal_bits_and_other_seeds_do_not(world: World) -> None:
    shown = slates(12, 32)
    runs = [run(Core(world, batch=32, seed=seed), shown) for seed in (4, 4, 5)]
    for first, second in zip(runs[0], runs[1], strict=True):
        assert torch.equal(first.response.signals, second.response.signals)
        assert torch.equal(first.reward, second.reward)
        assert torch.equal(first.terminated, second.terminated)
        if first.final is not None and second.final is not None:
            assert all(torch.equal(first.final[key], second.final[key]) for key in first.final)
    assert any(not torch.equal(a.response.signals, b.response.signals) for a, b in zip(runs[0], runs[2], strict=True))


def test_two_policies_that_show_one_item_to_one_lane_get_one_answer(world: World) -> None:
    """Whatever stands beside it, and wherever it stands: these users have no position bias."""
    lanes = 50
    one, other = slates(2, lanes)
    other[:, 3] = one[:, 0]  # the item the two have in common
    repeated = (other[:, :3] == one[:, :1]).any(1)
    answers = [Core(world, batch=lanes, seed=2).step(slate).response.signals for slate in (one, other)]
    assert torch.equal(answers[0][~repeated, 0], answers[1][~repeated, 3])
    assert 0 < float(answers[0][~repeated, 0, 0].mean()) < 1


def test_what_was_handed_out_stays_as_it_was(world: World) -> None:
    core = Core(world, batch=4)
    before = core.observe()
    copy = {key: value.clone() for key, value in before.items()}
    run(core, slates(8, 4))
    assert all(torch.equal(before[key], copy[key]) for key in before)


def test_a_cold_start_knows_nothing(once_world: World) -> None:
    core = Core(once_world, batch=8, start="cold", keys=(*DEFAULT_KEYS, "action_mask"))
    observation = core.observe()
    assert bool((observation["history"] == N).all())
    assert bool((observation["feedback"] == 0).all())
    assert bool(observation["action_mask"].all())


def test_the_mask_forbids_what_was_consumed(once_world: World) -> None:
    core = Core(once_world, batch=8, users="all", keys=("action_mask",))
    for lane, user in enumerate(core.users.tolist()):
        logged = set(once_world.sequences.of(user)[0].tolist())
        assert set((~core.observe()["action_mask"][lane]).nonzero()[:, 0].tolist()) == logged


def test_users_come_from_the_part_asked_for(world: World) -> None:
    core = Core(world, batch=200, users="evaluate")
    assert set(core.users.tolist()) == set(world.users.rows("evaluate").tolist())
    assert set(Core(world, batch=20, users=[7]).users.tolist()) == {7}


def test_next_episode_leaves_other_lanes_alone(world: World) -> None:
    core = Core(world, batch=3, seed=1)
    core.step(slates(1, 3)[0])
    before = core.observe()["history"]
    core.next_episode(torch.tensor([False, True, False]))
    assert core.episode.tolist() == [0, 1, 0]
    assert core.past.step.tolist() == [1, 0, 1]
    assert torch.equal(core.observe()["history"][[0, 2]], before[[0, 2]])


def test_bad_input_is_named(world: World) -> None:
    core = Core(world, batch=2)
    with pytest.raises(RecloopError, match=r"slate_size=41 does not fit a catalogue of 40 items"):
        Core(world, slate_size=41)
    with pytest.raises(RecloopError, match=r"slate is int64 \(2, 3\); this core takes an int64 tensor \(2, 4\)"):
        core.step(torch.zeros(2, 3).long())
    with pytest.raises(RecloopError, match=r"item row 41; the catalogue has rows 0 to 39"):
        core.step(torch.full((2, 4), 41))
    with pytest.raises(RecloopError, match=r"batch=0"):
        Core(world, batch=0)
    with pytest.raises(RecloopError, match=r"start='warm'; choose 'history' or 'cold'"):
        Core(world, start="warm")  # type: ignore[arg-type]
    with pytest.raises(RecloopError, match=r"unknown simulator of world 'tiny' 'trian'; did you mean 'train'"):
        Core(world, "trian")
    with pytest.raises(RecloopError, match=r"users holds 5 to 99"):
        core.reset(users=torch.tensor([5, 99]))
    with pytest.raises(RecloopError, match=r"lanes has shape \(1,\)"):
        core.reset(lanes=torch.tensor([3]))
    with pytest.raises(DeviceError, match=r"device 'cuda:93' is not usable"):
        Core(world, device="cuda:93")


def test_observations_carry_no_gradient(world: World) -> None:
    """Also where the encoder's weights are being trained elsewhere."""
    weights = list(world.state_encoder.parameters())
    trainable = [weight.requires_grad for weight in weights]
    try:
        for weight in weights:
            weight.requires_grad_(True)
        assert not Core(world, batch=2).observe()["state"].requires_grad
    finally:
        for weight, before in zip(weights, trainable, strict=True):
            weight.requires_grad_(before)


def test_without_state_nothing_is_encoded_and_everything_else_is_the_same(world_maker: Callable[..., World]) -> None:
    keys = ("history", "feedback", "shown", "answers", "context")
    full, bare = Core(world_maker(), batch=5, seed=1), Core(world_maker(), batch=5, seed=1, keys=keys)
    slate = torch.tensor([[0, 1, 2, 3]] * 5)
    for _ in range(4):
        one, other = full.step(slate), bare.step(slate)
        assert torch.equal(one.response.signals, other.response.signals)
        for key in keys:
            assert torch.equal(one.next_observation[key], other.next_observation[key]), key
    bare.keys = (*keys, "state")
    with pytest.raises(RecloopError, match="stepped without observation key 'state'"):
        bare.observe()
    bare.reset()
    assert torch.equal(bare.observe()["state"], Core(world_maker(), batch=5, seed=1).observe()["state"])


def test_what_was_handed_out_stays_as_it_was_when_lanes_start_anew(world_maker: Callable[..., World]) -> None:
    core = Core(world_maker(leave=0.5), batch=8, seed=3)
    slate = torch.tensor([[0, 1, 2, 3]] * 8)
    for _ in range(5):
        before = core.observe()
        copies = {key: value.clone() for key, value in before.items()}
        step = core.step(slate)
        after = {key: value.clone() for key, value in step.next_observation.items()}
        core.step(slate)
        assert all(torch.equal(before[key], copies[key]) for key in before)
        assert all(torch.equal(step.next_observation[key], after[key]) for key in after)


def test_lanes_that_consume_nothing_keep_their_state_and_the_others_advance(world_maker: Callable[..., World]) -> None:
    """Only the lanes that consumed something are computed; the result is that of advancing all."""
    core = Core(world_maker(), batch=16, seed=5)
    quiet = 0
    for slate in slates(6, 16):
        before = core.encoded
        step = core.step(slate)
        consumed = (step.response.signals[..., 0] > 0.5) & step.response.given[..., 0]
        items = torch.where(consumed, step.slate, N)
        whole = core.encoder.advance(before, items, step.response.signals)
        torch.testing.assert_close(step.next_observation["state"], core.encoder.vector(whole), atol=1e-6, rtol=0)
        quiet += int((~consumed.any(1)).sum())
    assert quiet > 0
