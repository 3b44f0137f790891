"""The core on a GPU: the answers of the CPU, no wait for the device in a step, CUDA graphs. `pytest -m gpu` there."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from recloop.encoders.base.errors import RecloopError
from recloop.envs.interaction.transition import Transition
from recloop.envs.simulation.core import Core
from recloop.envs.simulation.memory_guard import free_bytes
from recloop.envs.world.world import World
from recloop.experiments.bench.worlds import bench_world

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here"),
]

LANES, STEPS = 64, 25
NEAR = 1e-5
"""Within which floats agree; a draw so near its threshold may fall on the other side of it."""
FAMILIES = ["recurrent", "attentive", "factor", "truth"]


@pytest.fixture(scope="module")
def made() -> Callable[[str, bool], World]:
    found: dict[tuple[str, bool], World] = {}

    def make(family: str, exposures: bool) -> World:
        key = (family, exposures)
        if key not in found:
            found[key] = bench_world(1_000, family=family, exposures=exposures)  # type: ignore[arg-type]
        return found[key]

    return make


@pytest.fixture
def waiting_forbidden() -> Iterator[None]:
    yield
    torch.cuda.set_sync_debug_mode("default")


def slates(core: Core, steps: int = STEPS) -> Tensor:
    """int64 (steps, B, K) item rows, on the core's device."""
    draw = torch.Generator().manual_seed(0)
    return torch.randint(core.empty, (steps, core.batch, core.slate_size), generator=draw).to(core.device)


def followed(core: Core, steps: int = STEPS) -> list[Transition]:
    return [core.step(slate) for slate in slates(core, steps)]


def assert_agree(first: Transition, second: Transition, lanes: Tensor) -> Tensor:
    """Floats agree in the `lanes` (B,) bool that have met the same so far; those that still do after this step."""
    discrete = [(step.response.signals.flatten(1), step.terminated, step.truncated) for step in (first, second)]
    for one, other in zip(*discrete, strict=True):
        lanes = lanes & (one.cpu() == other.cpu()).view(len(lanes), -1).all(1)
    torch.testing.assert_close(second.reward.cpu()[lanes], first.reward.cpu()[lanes], atol=NEAR, rtol=NEAR)
    for key, value in first.next_observation.items():
        torch.testing.assert_close(
            second.next_observation[key].cpu()[lanes], value.cpu()[lanes], atol=NEAR, rtol=NEAR, msg=key
        )
    return lanes


@pytest.mark.parametrize("exposures", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_gpu_answers_as_the_cpu(made: Callable[[str, bool], World], family: str, exposures: bool) -> None:
    world = made(family, exposures)
    here, there = (followed(Core(world, batch=LANES, seed=3, device=device)) for device in ("cpu", "cuda"))
    lanes = torch.ones(LANES, dtype=torch.bool)
    for first, second in zip(here, there, strict=True):
        lanes = assert_agree(first, second, lanes)
    assert int(lanes.sum()) >= LANES - 1  # 16,000 draws, each within 1e-5 of its threshold once in 50,000


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_never_waits_for_the_gpu(
    made: Callable[[str, bool], World], family: str, waiting_forbidden: None
) -> None:
    core = Core(made(family, True), batch=LANES, device="cuda")
    shown = slates(core)
    core.step(shown[0])
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    for slate in shown[1:]:
        core.step(slate)


@pytest.mark.parametrize("exposures", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_cuda_graphs_answer_as_the_plain_step(
    made: Callable[[str, bool], World], family: str, exposures: bool, recwarn: pytest.WarningsRecorder
) -> None:
    world = made(family, exposures)
    plain, graphs = (Core(world, batch=LANES, seed=3, device="cuda", compile=compile) for compile in (False, True))
    lanes = torch.ones(LANES, dtype=torch.bool)
    handed_out: list[tuple[Tensor, Tensor]] = []
    for slate in slates(plain):
        first, second = plain.step(slate), graphs.step(slate)
        handed_out.append((second.next_observation["state"], second.next_observation["state"].clone()))
        lanes = assert_agree(first, second, lanes)
    assert int(lanes.sum()) >= LANES - 1
    assert all(torch.equal(kept, copy) for kept, copy in handed_out)  # a later replay writes over nothing handed out
    assert not [warning for warning in recwarn if "cannot be compiled" in str(warning.message)]


def test_lanes_beyond_the_memory_say_how_many_fit(made: Callable[[str, bool], World]) -> None:
    world = made("recurrent", True)
    free = free_bytes("cuda")
    with pytest.raises(RecloopError, match=r"^batch=\d[\d,]* lanes need .* of cuda memory, .* choose [\d,]+ or fewer$"):
        Core(world, batch=int(free // 1024), device="cuda")
    assert Core(world, batch=8, device="cuda").step(torch.zeros(8, 10, dtype=torch.int64)).reward.shape == (8,)


def test_memory_that_runs_out_within_a_step_is_told(made: Callable[[str, bool], World]) -> None:
    core = Core(made("recurrent", True), batch=LANES, device="cuda")
    held = torch.empty(int(free_bytes("cuda") * 0.98), dtype=torch.uint8, device="cuda")
    wide = torch.zeros(1)
    core.reward = lambda outcome: wide.to("cuda").expand(2**40).clone()[:LANES]
    with pytest.raises(RecloopError, match=f"^batch={LANES} lanes .* choose {LANES // 2} or fewer$"):
        core.step(slates(core)[0])
    del held
