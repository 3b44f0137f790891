"""The one supervised fit: it learns, stops, keeps the best, refuses NaN, and repeats to the bit."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recloop.encoders.base.errors import EncoderError, RecloopError
from recloop.encoders.base.fit import FitHistory, FitLoop, Pass, fit, minimise, shuffled

INPUTS = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
TRUTH = INPUTS @ torch.tensor([1.0, -2.0, 0.5])


class Line(nn.Module):
    """inputs . weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))

    def miss(self, rows: Tensor) -> tuple[Tensor, int]:
        return (INPUTS[rows] @ self.weight - TRUTH[rows]).square().mean(), len(rows)


def fitted(loop: FitLoop, **more: Any) -> tuple[Line, FitHistory]:
    line, generator = Line(), torch.Generator().manual_seed(1)
    return line, fit(line, loop, lambda: shuffled(64, 16, generator), line.miss, **more)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "warm-cosine"])
@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_it_learns_a_line(schedule: Any, optimizer: Any) -> None:
    loop = FitLoop(60, 0.1, optimizer, weight_decay=0.0, schedule=schedule, warmup=10, steps_a_pass=4, clip=5.0)
    line, history = fitted(loop)
    assert torch.allclose(line.weight, torch.tensor([1.0, -2.0, 0.5]), atol=0.01)
    assert len(history.passes) == 60
    assert history.best == 59
    assert history.passes[-1].loss < 1e-3 < history.passes[0].loss


def test_equal_seeds_give_equal_bits() -> None:
    loop = FitLoop(5, 0.1, schedule="linear")
    (first, told), (second, again) = fitted(loop), fitted(loop)
    assert torch.equal(first.weight, second.weight)
    assert told == again


def test_it_stops_early_and_keeps_the_best_weights() -> None:
    """Held-out losses 3, 2, 2, 4, ...: the second pass is best, a tie is not better, and two passes more is enough."""
    losses, kept = iter([3.0, 2.0, 2.0, 4.0]), []
    line, generator = Line(), torch.Generator().manual_seed(1)

    def held_out() -> float:
        assert not torch.is_grad_enabled()
        kept.append(line.weight.detach().clone())
        return next(losses)

    history = fit(line, FitLoop(9, 0.1, patience=2), lambda: shuffled(64, 16, generator), line.miss, held_out)
    assert [one.held_out for one in history.passes] == [3.0, 2.0, 2.0, 4.0]
    assert history.best == 1
    assert torch.equal(line.weight, kept[1])


def test_less_than_the_margin_is_not_better() -> None:
    losses = iter([3.0, 2.9, 2.8])
    _, history = fitted(FitLoop(9, 0.1, patience=2, margin=0.5), held_out=lambda: next(losses))
    assert (len(history.passes), history.best) == (3, 0)


def test_with_patience_alone_the_own_loss_says_which_pass_is_best() -> None:
    _, history = fitted(FitLoop(300, 0.5, weight_decay=0.0, patience=2))
    assert len(history.passes) < 300
    assert history.passes[history.best].loss == min(one.loss for one in history.passes)


def test_steps_follow_the_mean_of_a_summed_loss() -> None:
    """Sums over 16 rows give the fit that their means give, and are told as means too."""
    line, generator = Line(), torch.Generator().manual_seed(1)

    def summed(rows: Tensor) -> tuple[Tensor, int]:
        return line.miss(rows)[0] * 16, 16

    history = fit(line, FitLoop(3, 0.1, summed=True), lambda: shuffled(64, 16, generator), summed)
    mean, told = fitted(FitLoop(3, 0.1))
    assert torch.allclose(line.weight, mean.weight)
    assert [one.loss for one in history.passes] == pytest.approx([one.loss for one in told.passes])


def test_the_step_size_follows_its_schedule() -> None:
    told: list[Pass] = []
    fitted(FitLoop(4, 0.1, schedule="linear"), log=told.append)
    assert [one.learning_rate for one in told] == pytest.approx([0.1, 0.075, 0.05, 0.025])
    told.clear()
    fitted(FitLoop(2, 0.1, schedule="cosine", lowest_rate=0.02), log=told.append)
    assert [one.learning_rate for one in told] == pytest.approx([0.1, 0.06])
    told.clear()
    fitted(FitLoop(2, 0.1, schedule="warm-cosine", warmup=8, steps_a_pass=4), log=told.append)
    shares = [4 / 8 * (1 + math.cos(math.pi * 3 / 8)) / 2, (1 + math.cos(math.pi * 7 / 8)) / 2]
    assert [one.learning_rate for one in told] == pytest.approx([0.1 * share for share in shares])


def test_groups_have_settings_of_their_own() -> None:
    line = Line()
    nn.init.ones_(line.weight)
    groups = [{"params": [line.weight], "weight_decay": 0.5}]
    loop = FitLoop(1, 0.1, weight_decay=0.0)
    fit(line, loop, lambda: [torch.arange(4)], lambda rows: (line.weight.sum() * 0, len(rows)), groups=groups)
    assert line.weight.tolist() == pytest.approx([1 - 0.1 * 0.5] * 3)


def test_time_that_is_up_ends_the_fit() -> None:
    _, history = fitted(FitLoop(9, 0.1, seconds=1e-9))
    assert len(history.passes) == 1


def test_a_loss_that_is_no_number_is_refused() -> None:
    line = Line()
    nn.init.constant_(line.weight, math.inf)
    wrong = r"toy: the loss is (nan|inf) in pass 1; lower the learning rate \(0.25\), or look for NaN[^\n]*$"
    with pytest.raises(EncoderError, match=wrong):
        fit(line, FitLoop(3, 0.25), lambda: [torch.arange(4)], line.miss, name="toy", error=EncoderError)


def test_a_held_out_loss_that_is_no_number_is_refused() -> None:
    losses = iter([1.0, math.nan])
    with pytest.raises(RecloopError, match="fit: the held-out loss is nan in pass 2"):
        fitted(FitLoop(3, 0.25), held_out=lambda: next(losses))


@torch.no_grad()
def test_a_smooth_function_is_minimised() -> None:
    spot = torch.zeros(2, requires_grad=True)
    minimise(lambda: ((spot - torch.tensor([3.0, -1.0])) ** 2).sum() + 2, [spot])
    assert spot.tolist() == pytest.approx([3.0, -1.0], abs=1e-4)


def test_accumulated_batches_move_weights_as_one_large_batch() -> None:
    """Two batches of 16 a step are a batch of 32; of three batches the last moves nothing."""

    def fitted_on(accumulate: int, size: int, most: int) -> Tensor:
        line = Line()
        loop = FitLoop(1, 0.1, "adam", accumulate=accumulate)
        fit(line, loop, lambda: torch.arange(64).split(size)[:most], line.miss)
        return line.weight.detach()

    assert torch.allclose(fitted_on(2, 16, 4), fitted_on(1, 32, 2), atol=1e-6)
    assert torch.equal(fitted_on(2, 16, 3), fitted_on(2, 16, 2))
