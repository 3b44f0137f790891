"""The conformance kit: sound users pass, and each broken promise is named with its mend."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from recloop.encoders.base.errors import UserSimulatorError
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Expected, Past, Response, State
from recloop.envs.logs.schema import Signal
from recloop.envs.truth.boredom import RATING
from recloop.envs.truth.built_in import built_in_world
from recloop.envs.truth.tastes import CLICK
from recloop.envs.users.checks import check_users
from recloop.envs.users.contract import UserSimulator
from recloop.envs.world.world import World


@dataclass(frozen=True)
class Mood(State):
    """mood float32 (B,)."""

    mood: Tensor


class Sound(UserSimulator):
    """Clicks at 0.4 plus mood, rates 3; mood falls with every slate."""

    signals = (CLICK, RATING)

    def prepare(self, world: World, device: torch.device | str) -> None:
        super().prepare(world, device)
        self.n = len(world.catalogue)

    def arrive(self, users: Tensor, draw: Draw) -> Any:
        return Mood(draw.uniform("mood") / 2)

    def respond(self, state: Any, past: Past, slate: Tensor, draw: Draw) -> Any:
        held = slate < self.n
        click = (draw.uniform("click", slate) < 0.4 + state.mood.unsqueeze(1)) & held
        return Mood(state.mood * 0.9), self.answer(held, click, draw.uniform("leave") < 0.1)

    def answer(self, held: Tensor, click: Tensor, left: Tensor) -> Response:
        signals = torch.stack([click.float(), 3.0 * click], dim=2)
        return Response(signals, torch.stack([held, click], dim=2), left)


class Counting(Sound):
    calls = 0

    def respond(self, state: Any, past: Past, slate: Tensor, draw: Draw) -> Any:
        self.calls += 1
        after, response = super().respond(state, past, slate, draw)
        return Mood(after.mood + self.calls), response


class Writing(Sound):
    def respond(self, state: Any, past: Past, slate: Tensor, draw: Draw) -> Any:
        found = super().respond(state, past, slate, draw)
        past.feedback.add_(1)
        return found


class Crowded(Sound):
    def respond(self, state: Any, past: Past, slate: Tensor, draw: Draw) -> Any:
        after, response = super().respond(state, past, slate, draw)
        return Mood(after.mood - after.mood.mean()), response


class ByPlace(Sound):
    """Luck belongs to the sum of the slate."""

    def respond(self, state: Any, past: Past, slate: Tensor, draw: Draw) -> Any:
        return super().respond(state, past, slate, Draw(draw.key + slate.sum(1)))


class Ghost(Sound):
    def answer(self, held: Tensor, click: Tensor, left: Tensor) -> Response:
        return super().answer(torch.ones_like(held), click, left)


class Eager(Sound):
    def answer(self, held: Tensor, click: Tensor, left: Tensor) -> Response:
        response = super().answer(held, click, left)
        return replace(response, given=held.unsqueeze(2).expand(-1, -1, 2))


class Generous(Sound):
    def answer(self, held: Tensor, click: Tensor, left: Tensor) -> Response:
        response = super().answer(held, click, left)
        return replace(response, signals=response.signals * torch.tensor([1.0, 2.0]))


class Leftover(Sound):
    def answer(self, held: Tensor, click: Tensor, left: Tensor) -> Response:
        return replace(super().answer(held, click, left), signals=torch.ones(*held.shape, 2))


class Floating(Sound):
    def answer(self, held: Tensor, click: Tensor, left: Tensor) -> Response:
        return super().answer(held, click, left.float())


class Lost(Sound):
    def answer(self, held: Tensor, click: Tensor, left: Tensor) -> Response:
        response = super().answer(held, click, left)
        return replace(response, signals=response.signals / response.signals.new_zeros(1))


class Flat(Sound):
    def answer(self, held: Tensor, click: Tensor, left: Tensor) -> Response:
        response = super().answer(held, click, left)
        return replace(response, signals=response.signals[..., 0])


class Bare(Sound):
    def arrive(self, users: Tensor, draw: Draw) -> Any:
        return draw.uniform("mood")


class Silent(Sound):
    signals = (CLICK,)


class Backwards(Sound):
    signals = (RATING, CLICK)


class Untyped(Sound):
    signals = ("click",)  # type: ignore[assignment]


class Crashing(Sound):
    def respond(self, state: Any, past: Past, slate: Tensor, draw: Draw) -> Any:
        raise KeyError("movie 7")


class Certain(Sound):
    def expected(self, state: Any, past: Past, slate: Tensor) -> Expected:
        mean = torch.full((*slate.shape, 2), 3.0)
        return Expected(mean, leave=torch.full((len(slate),), 1.5))


class Odd(Sound):
    def utility(self, state: Any, past: Past, items: Tensor) -> Tensor:
        return torch.rand(len(past.step), items.shape[-1], generator=torch.Generator().manual_seed(items.dim()))


class Elsewhere(Sound):
    """On a device of its own; `meta` stands for any that the core is not on."""

    def answer(self, held: Tensor, click: Tensor, left: Tensor) -> Response:
        response = super().answer(held, click, left)
        return replace(response, signals=response.signals.to("meta"))


class Stray(Sound):
    def arrive(self, users: Tensor, draw: Draw) -> Any:
        return Mood(torch.zeros(len(users), device="meta"))


class Clouded(Sound):
    def arrive(self, users: Tensor, draw: Draw) -> Any:
        return Mood(torch.full((len(users),), float("nan")))


class Wearing(Sound):
    """Wears its state out in place."""

    def respond(self, state: Any, past: Past, slate: Tensor, draw: Draw) -> Any:
        found = super().respond(state, past, slate, draw)
        state.mood.mul_(0.5)
        return found


class Seeding(Sound):
    """The same twice, because it seeds what is not its own."""

    def respond(self, state: Any, past: Past, slate: Tensor, draw: Draw) -> Any:
        torch.manual_seed(0)
        return super().respond(state, past, slate, draw)


class Ranked(Sound):
    def arrive(self, users: Tensor, draw: Draw) -> Any:
        return Mood(torch.arange(len(users)) / len(users))


class Deaf(Sound):
    def prepare(self, world: World, device: torch.device | str) -> None:
        raise FileNotFoundError("weights.bin")


class Captive(Sound):
    """Says that nobody ever leaves, and lets everybody go."""

    def answer(self, held: Tensor, click: Tensor, left: Tensor) -> Response:
        return super().answer(held, click, torch.ones_like(left))

    def expected(self, state: Any, past: Past, slate: Tensor) -> Expected:
        return Expected(torch.ones(*slate.shape, 2), leave=torch.zeros(len(slate)))


class Endless(Sound):
    """Leaves place by place."""

    def answer(self, held: Tensor, click: Tensor, left: Tensor) -> Response:
        return super().answer(held, click, left.unsqueeze(1).expand_as(held))


def test_sound_users_pass() -> None:
    check_users(Sound(), built_in_world())
    check_users(Sound(), built_in_world(), lanes=3, slate_size=1)
    check_users(built_in_world().simulator("truth"), built_in_world())


BROKEN = {
    Counting: "respond differs between two equal calls; draw all randomness from `draw`",
    Writing: "respond changes the past it is given; copy",
    Crowded: "alone answers otherwise than among 16",
    ByPlace: "one item at one place gets two answers",
    Ghost: r"answers empty places \(slate == N\); set given False",
    Eager: "'rating' is given where 'click' is not positive",
    Generous: r"'rating' takes 6; its values are \[1.0, 2.0, 3.0, 4.0, 5.0\]",
    Leftover: "signals are not 0 where not given",
    Floating: r"Response.left is torch.float32; give torch.bool",
    Lost: "Response.signals holds NaN or infinite numbers",
    Flat: r"Response.signals has shape \(16, 5\); give \(16, 5, 2\)",
    Bare: "its state is a Tensor without `where` and `rows`; derive it from recloop.envs.State",
    Silent: r"its signals are \['click'\], the world's are \['click', 'rating'\]",
    Backwards: "'rating' is not the binary consumption",
    Untyped: "`signals` is no tuple of Signal",
    Crashing: "respond raises KeyError: 'movie 7'",
    Certain: "Expected.mean of 'click' lies outside 0.0 to 1.0",
    Elsewhere: "Response.signals lies on meta, it was prepared for cpu; keep to self.device",
    Stray: "the state's mood lies on meta, it was prepared for cpu; keep to self.device",
    Clouded: "the state's mood holds NaN; check the inputs",
    Wearing: "respond changes the state it is given; copy",
    Seeding: "seeds a global random generator; draw all randomness from `draw`",
    Ranked: "a user arrives otherwise alone than among 16",
    Deaf: "prepare raises FileNotFoundError: weights.bin",
    Captive: "users leave .* where Expected.leave says that they never do",
    Endless: r"Response.left has shape \(16, 5\); give \(16,\)",
    Odd: r"utility of items \(C,\) and of the same items \(B, C\) differ",
}


@pytest.mark.parametrize("users", BROKEN, ids=lambda users: users.__name__)
def test_a_broken_promise_is_named_with_its_mend(users: type[Sound]) -> None:
    with torch.random.fork_rng(), pytest.raises(UserSimulatorError, match=BROKEN[users]) as caught:
        check_users(users(), built_in_world())
    assert "\n" not in str(caught.value)


def test_every_broken_promise_is_in_one_message() -> None:
    with pytest.raises(UserSimulatorError) as caught:
        check_users(Certain(), built_in_world())
    assert "(1) Expected.mean" in str(caught.value)
    assert "(2) Expected.leave is no probability" in str(caught.value)


def test_other_objects_are_refused() -> None:
    with pytest.raises(UserSimulatorError, match="Signal is no UserSimulator; derive it"):
        check_users(Signal("click"), built_in_world())  # type: ignore[arg-type]
