"""Users who speak: what a wish does, and what it leaves alone."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from recloop.encoders.base.errors import UserSimulatorError
from recloop.encoders.instruction.phrases import TRAINING
from recloop.encoders.instruction.spoken import SPOKEN
from recloop.envs.build.speaking import speaking_world, wishes_of
from recloop.envs.interaction.randomness import Draw
from recloop.envs.simulation.core import Core
from recloop.envs.truth.worlds import truth_world
from recloop.envs.users.contract import UserSimulator
from recloop.envs.users.per_user import PerUserSimulator
from recloop.envs.users.speaking.users import SpeakingUsers, Speech
from recloop.envs.world.world import World

KEYS = ("state", "history", "instruction")


@pytest.fixture(scope="module")
def silent() -> World:
    return truth_world("clicks", users=60, items=60, seed=3)


def users_of(world: World) -> SpeakingUsers:
    users = world.simulators["truth"]
    assert isinstance(users, SpeakingUsers)
    return users


def slates(batch: int, step: int, items: int = 60) -> Tensor:
    generator = torch.Generator().manual_seed(step)
    return torch.stack([torch.randperm(items, generator=generator)[:5] for _ in range(batch)])


def test_strength_0_is_the_world_without_words_bit_for_bit(silent: World) -> None:
    speaking = speaking_world(silent, Speech(strength=0.0))
    one, two = Core(silent, batch=40, seed=1, native=False), Core(speaking, batch=40, seed=1, keys=KEYS)
    for step in range(25):
        slate = slates(40, step)
        mine, theirs = one.step(slate), two.step(slate)
        for name in ("signals", "given", "left"):
            assert torch.equal(getattr(mine.response, name), getattr(theirs.response, name))
        assert torch.equal(mine.reward, theirs.reward)
        assert torch.equal(one.past.history, two.past.history)


def test_a_wish_is_worth_its_strength_in_log_odds(silent: World) -> None:
    users = users_of(speaking_world(silent, Speech(strength=2.0, wishes=1.0)))
    users.prepare(silent, "cpu")
    lanes = torch.arange(30_000)
    draw = Draw.at(0, lanes, lanes * 0, lanes * 0)
    state = users.arrive(lanes * 0 + 7, draw)
    past, slate = Core(silent, batch=1).past.rows(lanes * 0), torch.arange(5).expand(30_000, 5)
    taken = users.respond(state, past, slate, draw)[1].signals[..., 0]
    for wish in range(3):
        mine = state.wish == wish
        expected = users.expected(state.rows(mine.nonzero()[:, 0]), past.rows(lanes[mine]), slate[mine])
        assert expected is not None
        torch.testing.assert_close(taken[mine].mean(0), expected.mean[0, :, 0], atol=0.05, rtol=0)
    plain = users.users.expected(state.own, past, slate)
    assert plain is not None
    shift = torch.logit(users.expected(state, past, slate).mean) - torch.logit(plain.mean)  # type: ignore[union-attr]
    fits = users.wishes.fits[state.wish][:, :5]
    torch.testing.assert_close(shift[..., 0], torch.where(fits, 1.0, -1.0), atol=1e-3, rtol=0)


def test_words_are_heard_and_the_wish_is_told_in_info_alone(silent: World) -> None:
    speaking = speaking_world(silent, Speech(wishes=1.0))
    core = Core(speaking, batch=50, keys=KEYS)
    users = core.simulator
    assert isinstance(users, SpeakingUsers)
    said = core.observe()["instruction"]
    assert torch.equal(said, users.says(core.state))
    assert bool((said.norm(dim=1) > 0.99).all())
    own = users.wishes.fits[core.state.wish]
    best = speaking.instruction.scores_of(said).argmax(1)  # type: ignore[union-attr]
    assert own[torch.arange(50), best].float().mean() > 0.8
    assert set(core.observe(("state", "instruction"))) == {"state", "instruction"}
    assert all(users.meant(core.state))


def test_users_speak_in_words_that_no_encoder_was_fitted_on(silent: World) -> None:
    told, spoken = TRAINING.templates(), SPOKEN.templates()
    assert not {frame for frame in told & spoken if frame != "{}"}
    wishes = users_of(speaking_world(silent)).wishes
    assert len(wishes.texts) == len(wishes.names) * wishes.wordings
    assert len(wishes.names) > 5


def test_a_question_is_answered_truly_wrongly_or_not_at_all(silent: World) -> None:
    speech = Speech(wishes=1.0, spoken=0.0, changes=0.0, tells=0.6, misunderstands=0.3)
    speaking = speaking_world(silent, speech)
    core, users = Core(speaking, batch=4000, keys=KEYS), users_of(speaking)
    assert not bool(core.observe()["instruction"].any())
    wish, episode = core.state.wish, core.episode.clone()
    transition = core.step(torch.full((4000, 5), 60))
    stayed = core.episode == episode
    assert transition.response.rating is not None
    assert not bool(transition.response.rating.any())
    words = core.state.words[stayed]
    silent_now = (words == len(users.wishes.texts)).float().mean()
    true = (words // users.wishes.wordings == wish[stayed]).float().mean()
    assert silent_now == pytest.approx(0.1, abs=0.02)
    assert true == pytest.approx(0.6, abs=0.03)


def test_ratings_follow_what_fits_and_a_wish_that_is_met_is_followed_by_another(silent: World) -> None:
    speaking = speaking_world(silent, Speech(strength=8.0, wishes=1.0, changes=0.0, rating_noise=0.0, enough=2))
    core, users = Core(speaking, batch=60, keys=KEYS), users_of(speaking)
    before = core.state
    fits = users.wishes.fits[before.wish].float()
    fitting = fits.topk(5, dim=1)
    rating = core.step(fitting.indices).response.rating
    share = fitting.values.mean(1)
    assert rating is not None
    assert torch.equal(rating, (1 + 4 * share).round())
    met = core.state.met
    assert bool((met < 2).all())  # two that fit end the wish, and counting begins anew


def test_what_words_mean_may_be_swapped_and_wishes_left_out(silent: World) -> None:
    count = len(users_of(speaking_world(silent)).wishes.names)
    meaning = torch.arange(count).roll(1)
    speaking = speaking_world(silent, Speech(wishes=1.0), meaning=meaning, voiced=[2, 3])
    core = Core(speaking, batch=200, keys=KEYS)
    users = users_of(speaking)
    assert set(core.state.wish.tolist()) == {2, 3}
    assert torch.equal(core.state.words // users.wishes.wordings, meaning[core.state.wish])


def test_it_is_kept_with_the_world(silent: World, tmp_path: Path) -> None:
    speaking = speaking_world(silent, Speech(strength=1.5))
    speaking.save(tmp_path / "w")
    again = World.load(tmp_path / "w")
    one, two = (Core(world, batch=20, keys=KEYS, seed=5) for world in (speaking, again))
    for step in range(6):
        mine, theirs = one.step(slates(20, step)), two.step(slates(20, step))
        assert torch.equal(mine.response.signals, theirs.response.signals)
        torch.testing.assert_close(mine.next_observation["instruction"], theirs.next_observation["instruction"])


class Coin(PerUserSimulator):
    """Draws from a generator of its own: nothing shifts that."""

    signals = truth_world("clicks", users=8, items=12).signals

    def arrive_one(self, user_row, profile, rng):  # type: ignore[no-untyped-def]
        return {}

    def respond_one(self, state, slate, rng):  # type: ignore[no-untyped-def]
        return state, {"click": [float(rng.random() < 0.5) for _ in slate]}, False


def test_users_who_cannot_hear_are_refused(silent: World) -> None:
    deaf: UserSimulator = Coin()
    wishes = users_of(speaking_world(silent)).wishes
    speaking = SpeakingUsers(deaf, wishes, Speech(wishes=1.0))
    world = speaking_world(silent)
    with pytest.raises(UserSimulatorError, match="Coin cannot hear a wish"):
        Core(world, speaking, batch=4)


def test_bad_settings_are_refused_in_one_line(silent: World) -> None:
    with pytest.raises(UserSimulatorError, match=r"strength=-1.* from 0 on"):
        Speech(strength=-1.0)
    with pytest.raises(UserSimulatorError, match=r"wishes=1.5 must lie in \[0, 1\]"):
        Speech(wishes=1.5)
    with pytest.raises(UserSimulatorError, match="add up to more than 1"):
        Speech(tells=0.9, misunderstands=0.2)
    with pytest.raises(UserSimulatorError, match="speak already"):
        speaking_world(speaking_world(silent))
    with pytest.raises(UserSimulatorError, match="each of 0 to"):
        speaking_world(silent, meaning=[0, 0])
    wide = truth_world("clicks", users=8, items=12, slate_size=10)
    with pytest.raises(UserSimulatorError, match="to wish for: attributes of 10"):
        wishes_of(wide, speaking_world(silent).instruction)  # type: ignore[arg-type]
