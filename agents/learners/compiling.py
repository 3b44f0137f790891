"""Compiling what pays, where somebody asks for it."""

import warnings
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch

Compiled = TypeVar("Compiled", bound=Callable[..., Any])


def compiled(function: Compiled, wanted: bool) -> Compiled:
    """`function` through `torch.compile` where that is wanted; with a warning, as it is where it cannot be compiled."""
    if not wanted:
        return function
    fast, chosen = torch.compile(function, dynamic=False), [True]

    def call(*arguments: Any) -> Any:
        if not chosen[0]:
            return function(*arguments)
        try:
            return fast(*arguments)
        except Exception as error:  # compilers fail in ways of their own
            chosen[0] = False
            reason = (str(error).splitlines() or [""])[0]
            name = getattr(function, "__name__", type(function).__name__)
            warnings.warn(f"{name} runs uncompiled: {type(error).__name__} {reason}", stacklevel=2)
            return function(*arguments)

    return cast(Compiled, call)
