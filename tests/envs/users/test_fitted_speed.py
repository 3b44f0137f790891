"""What the loop computes another way than the fit, against the fit's own way; and that it can be compiled."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from recloop.envs.interaction.randomness import Draw
from recloop.envs.users.fitted import AssumedLeaving, OwnMemberUsers
from recloop.envs.users.fitted.fitting.fit import NEURAL
from recloop.envs.users.fitted.heads import start_heads
from recloop.envs.users.fitted.inputs.groups import Groups, group_sizes
from recloop.envs.users.fitted.inputs.slate_context import InSlate, Reading, SlateContext
from recloop.envs.users.fitted.layers import gru_cell, moved, start_weights
from recloop.envs.users.fitted.memory import Sizes
from recloop.envs.users.fitted.neural import NeuralUsers
from tests.envs.users.conftest import DIM, ITEMS, Case, consumption_log, draws, past_at_arrival, slate_log, world_of

EMPTY = 6
COLUMNS = torch.tensor([[0, 1], [0, 0], [1, 1], [1, 0], [2, 2], [3, 1], [3, 2]])  # 5 and 4 have one group less
QUICKEST = ("consumption", "recurrent", "eager")
SCALE = torch.tensor([1.3, 0.7])


def untrained(kind: str, family: str, seed: int = 0) -> tuple[NeuralUsers, Case]:
    """Users of any weights, and a log they could have been fitted on."""
    case = consumption_log(users=20) if kind == "consumption" else slate_log(users=20)
    shown = case.sequences.slates is not None
    sizes = Sizes(ITEMS, DIM, 2, shown, 3 if shown else 1, True, 16, 8, 4, 3, group_sizes(case.groups), shown)
    users = NEURAL[family](case.signals, sizes, None if shown else AssumedLeaving(0.05, 0.15))
    generator = torch.Generator().manual_seed(seed)
    start_weights(users.memory, generator)
    start_heads(users.heads, generator)
    if users.context is not None:
        start_weights(users.context, generator)
    users.groups.fill(case.groups)
    users.parts().requires_grad_(False)
    return users, case


@pytest.fixture
def context() -> SlateContext:
    groups = Groups(EMPTY, group_sizes(COLUMNS))
    groups.fill(COLUMNS)
    made = SlateContext(groups, width=4, user_dim=3, item_dim=2, signals=2)
    start_weights(made, torch.Generator().manual_seed(0))
    for bias in (made.common.bias, made.first.bias, made.second.bias, made.last.bias):
        bias.data.normal_(generator=torch.Generator().manual_seed(1))
    return made.requires_grad_(False)


def reading(context: SlateContext, lanes: int) -> Reading:
    generator = torch.Generator().manual_seed(1)
    rows = torch.rand(lanes, context.groups.count, 4, generator=generator)
    return Reading(torch.rand(lanes, 3, generator=generator), groups=rows)


def slates(lanes: int, places: int) -> Tensor:
    """Some places empty, one whole slate empty."""
    found = torch.randint(0, EMPTY + 1, (lanes, places), generator=torch.Generator().manual_seed(3))
    found[0] = EMPTY
    return found


@pytest.mark.parametrize("places", [1, 2, 5, 70])
def test_the_folded_context_is_the_context_place_by_place(context: SlateContext, places: int) -> None:
    lanes, wall = 9, 0.2
    read, slate = reading(context, lanes), slates(lanes, places)
    table = torch.rand(EMPTY + 1, 2, generator=torch.Generator().manual_seed(2))
    characters = context.characters(table, torch.rand(EMPTY + 1, 2, generator=torch.Generator().manual_seed(4)))
    held = slate < EMPTY
    base = torch.randn(lanes, places, generator=torch.Generator().manual_seed(5))
    seen = context.look_at(read, characters, slate)
    consumed, wanted = torch.zeros(lanes, places), []
    for place in range(places):
        added = context.at_place(seen, consumed, place) * SCALE
        consumed[:, place] = ((base[:, place] + added[:, 0] > wall) & held[:, place]).float()
        wanted.append(added)
    assert 0 < float(consumed.mean()) < 1

    def decide(score: Tensor, place: int) -> Tensor:
        return ((score > wall) & held[:, place]).float()

    folded = InSlate(context, SCALE)
    found, decided = folded.answered(read, slate.T, characters[slate.T], base.T, decide)
    assert torch.equal(decided.T, consumed)
    assert torch.allclose(found.transpose(0, 1)[held], torch.stack(wanted, dim=1)[held], atol=1e-5)
    alone = context.answered(seen, torch.zeros(lanes, places)) * SCALE
    unanswered = folded.unanswered(read, slate.T, characters[slate.T]).transpose(0, 1)
    assert torch.allclose(unanswered[held], alone[held], atol=1e-5)


def test_a_cell_without_gradients_moves_as_the_cell() -> None:
    cell = gru_cell(5, 8)
    start_weights(cell, torch.Generator().manual_seed(0))
    cell.bias_ih.data.normal_(generator=torch.Generator().manual_seed(1))
    cell.bias_hh.data.normal_(generator=torch.Generator().manual_seed(2))
    rows, hidden = torch.randn(2, 40, 13, generator=torch.Generator().manual_seed(3)).split([5, 8], dim=2)
    with torch.no_grad():
        found = moved(cell, 3 * rows[0], hidden[1])
    assert torch.allclose(found, cell(3 * rows[0], hidden[1]), atol=1e-6)


@pytest.mark.parametrize("kind", ["consumption", "slates"])
def test_attention_without_keys_and_values_is_attention(kind: str) -> None:
    users, case = untrained(kind, "attentive")
    world, lanes = world_of(case), torch.arange(20)
    users.prepare(world, "cpu")
    state, past = users.arrive(lanes, draws(20)), past_at_arrival(world, lanes)
    with torch.no_grad():
        folded = users._reading(state, past)
    with torch.enable_grad():
        plain = users._reading(state, past)
    assert torch.allclose(folded.vector, plain.vector, atol=1e-5)


@pytest.fixture(autouse=True)
def _compiled_anew() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def step_of(simulator: Any) -> Callable[..., Any]:
    """A whole step of users, as a core may compile it."""

    def step(state: Any, past: Any, slate: Tensor, draw: Draw) -> tuple[Any, Any, Any]:
        after, response = simulator.respond(state, past, slate, draw)
        back = after.where(response.left, simulator.resume(after, past.days_away, draw))
        return back, response, simulator.arrive(slate[:, 0], draw)

    return step


def agree(found: Any, wanted: Any) -> None:
    if isinstance(wanted, Tensor):
        assert torch.allclose(found.to(torch.float32), wanted.to(torch.float32), atol=1e-5)
        return
    for name, value in vars(wanted).items():
        if value is not None:
            agree(getattr(found, name), value)


TRACED = [(kind, family, "eager") for kind in ("consumption", "slates") for family in sorted(NEURAL)]
GENERATED = [("consumption", "recurrent", "inductor")]  # a minute of compiling each; the graphs above are what differs
EVERY = [pytest.param(*case, marks=() if case == QUICKEST else pytest.mark.slow) for case in (*TRACED, *GENERATED)]


@pytest.mark.parametrize(("kind", "family", "backend"), EVERY)
def test_a_step_compiles_to_one_graph_with_the_same_answers(kind: str, family: str, backend: str) -> None:
    """Every member answers every lane there, for shapes must not depend on who drew whom."""
    (one, case), (two, _) = untrained(kind, family), untrained(kind, family, seed=1)
    world, lanes = world_of(case), torch.arange(6)
    own = OwnMemberUsers([one, two])
    own.prepare(world, "cpu")
    past, slate = past_at_arrival(world, lanes), torch.tensor([[0, 4, 36], [1, 2, 3]] * 3)
    state = own.arrive(lanes, draws(6))
    step = step_of(own)
    compiled = torch.compile(step, backend=backend, fullgraph=True, dynamic=False)
    for found, wanted in zip(compiled(state, past, slate, draws(6)), step(state, past, slate, draws(6)), strict=True):
        agree(found, wanted)
