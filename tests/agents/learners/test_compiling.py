"""Compiling is opt-in and never in the way."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from recloop.agents.learners.compiling import compiled


def double(values: Tensor) -> Tensor:
    return 2 * values


def test_what_is_not_wanted_is_the_function_itself() -> None:
    assert compiled(double, False) is double


def test_what_cannot_be_compiled_runs_as_it_is_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            raise RuntimeError("no compiler\nand a long trace")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    call = compiled(double, True)
    with pytest.warns(UserWarning, match="double runs uncompiled: RuntimeError no compiler$"):
        assert call(torch.ones(2)).tolist() == [2, 2]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert call(torch.ones(2)).tolist() == [2, 2]
