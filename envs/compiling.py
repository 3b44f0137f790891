"""`torch.compile` where it pays: opt-in, and where it fails the plain function, with a warning that says why."""

import warnings
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch

from recloop.encoders.errors import RecloopError
from recloop.envs.memory import is_out_of_memory

_FORMS = 64
"""Worlds, batches and members that one function may be compiled for in a process; torch's own limit is 8."""


class Compiled:
    """A pure function of tensors, compiled at its first call for each form of its arguments.

    On the CPU the generated code is called from C++; on a GPU it is captured as a CUDA graph, whose results are copied
    out, so that they stay as they are when the next step runs. What a failure was is said once, in a warning.

    Args:
        function: without a branch on a tensor's value; what it holds on to (modules, tables) must not be replaced.
        what: what people call it.
        device: where its tensors live.

    Attributes:
        failure: why it runs as it is, in one line; None while compiled.
    """

    def __init__(self, function: Callable[..., Any], what: str, device: torch.device) -> None:
        self.function, self.what = function, what
        self.failure: str | None = None
        self._graphs = device.type == "cuda"
        options: dict[str, Any] = {"guard_filter_fn": torch.compiler.skip_guard_on_all_nn_modules_unsafe}
        options.update({"triton.cudagraphs": True} if self._graphs else {"cpp_wrapper": True})
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _FORMS)
        torch._dynamo.config.allow_rnn = True  # the state encoder reads the weights of a GRU by name
        self._compiled = torch.compile(function, fullgraph=True, dynamic=False, options=options)

    def __call__(self, *arguments: Any) -> Any:
        """The function's result."""
        if self.failure is not None:
            return self.function(*arguments)
        try:
            if self._graphs:
                torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
                return _copied(self._compiled(*arguments))
            return self._compiled(*arguments)
        except Exception as error:
            if isinstance(error, RecloopError) or is_out_of_memory(error):
                raise
            first = next(iter(str(error).strip().splitlines()), "")
            self.failure = f"{type(error).__name__}: {first}"
            warnings.warn(
                f"compile=True: {self.what} cannot be compiled here and runs as it is ({self.failure}); a C++ compiler "
                "is needed on the CPU, triton on a GPU",
                RuntimeWarning,
                stacklevel=3,
            )
            return self.function(*arguments)


def _copied(result: Any) -> Any:
    """Tensors, alone or in tuples, dicts and dataclasses, as new ones: a CUDA graph writes the same places again."""
    if isinstance(result, torch.Tensor):
        return result.clone()
    if isinstance(result, tuple):
        return tuple(_copied(part) for part in result)
    if isinstance(result, dict):
        return {name: _copied(part) for name, part in result.items()}
    if is_dataclass(result) and not isinstance(result, type):
        changed = {f.name: _copied(getattr(result, f.name)) for f in fields(result)}
        return replace(result, **changed)
    return result
