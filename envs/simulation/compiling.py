"""`torch.compile` where it pays: opt-in, and where it fails the plain function, with a warning that says why."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from types import FunctionType
from typing import Any

import torch

from recloop.encoders.base.errors import RecloopError
from recloop.envs.simulation.memory_guard import is_out_of_memory


class Compiled:
    """A pure function of tensors and dataclasses of them, compiled at its first call.

    Only the shapes, strides and types of the tensors are looked at before the generated code runs. On the CPU it is
    called from C++; on a GPU it is captured as a CUDA graph, whose results are copied out, so that they stay as they
    are when the next step runs. What a failure was is said once, in a warning.

    Args:
        function: without a branch on a tensor's value; what it holds on to (modules, tables) must not be replaced, and
            what else its arguments hold must not change.
        what: what people call it.
        device: where its tensors live.

    Attributes:
        failure: why it runs as it is, in one line; None while compiled.
    """

    def __init__(self, function: Callable[..., Any], what: str, device: torch.device) -> None:
        self.function, self.what = function, what
        self.failure: str | None = None
        self._graphs = device.type == "cuda"
        options: dict[str, Any] = {"guard_filter_fn": _tensors_alone}
        options.update({"triton.cudagraphs": True} if self._graphs else {"cpp_wrapper": True})
        torch._dynamo.config.allow_rnn = True  # the state encoder reads the weights of a GRU by name
        self._compiled = torch.compile(_by_itself(function), fullgraph=True, dynamic=False, options=options)

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


def _by_itself(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function behind code of its own: torch keeps what it compiled by code, and would search all cores' forms."""

    def call(*arguments: Any) -> Any:
        return function(*arguments)

    return FunctionType(call.__code__.replace(), call.__globals__, None, None, call.__closure__)


def _tensors_alone(guards: Sequence[Any]) -> list[bool]:
    """Of all that torch would check at every call, the tensors among the arguments."""
    return [guard.guard_type == "TENSOR_MATCH" and "arguments" in guard.name for guard in guards]


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
