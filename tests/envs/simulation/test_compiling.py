"""Compiling is never in the way."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from recloop.envs.simulation.compiling import Compiled


def double(values: Tensor) -> Tensor:
    return 2 * values


def test_what_cannot_be_compiled_runs_as_it_is_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            raise RuntimeError("no compiler\nand a long trace")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    call = Compiled(double, "doubling", torch.device("cpu"))
    with pytest.warns(RuntimeWarning, match=r"doubling .* runs as it is \(RuntimeError: no compiler\);"):
        assert call(torch.ones(2)).tolist() == [2, 2]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert call(torch.ones(2)).tolist() == [2, 2]
