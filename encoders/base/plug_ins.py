"""What a person plugs in, and where it went wrong: named in one line, with the part of the traceback that is theirs."""

import inspect
import os
import sysconfig
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

from recloop.encoders.base.described import in_one_line
from recloop.encoders.base.errors import PlugInError

_OURS = tuple(f"{Path(__file__).parents[2] / room}{os.sep}" for room in ("encoders", "envs", "agents", "experiments"))
_STANDARD = sysconfig.get_path("stdlib")


def source_of(thing: Any) -> str:
    """What a class, an object of it or a function is called: `module:name`."""
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{named.__module__}:{named.__qualname__}"


def is_ours(kind: type) -> bool:
    """Whether a class is recloop's own, rather than plugged in."""
    return kind.__module__.partition(".")[0] == "recloop"


def returned(value: Any) -> str:
    """What came out of a call, in words: its type, and of a tensor also its shape.

    >>> returned(None), returned([1, 2])
    ('None', 'a list of 2')
    """
    if value is None:
        return "None"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return in_one_line(value)
    return f"a {type(value).__name__}" + (f" of {len(value)}" if hasattr(value, "__len__") else "")


def plug_in_fault(error: BaseException) -> PlugInError | None:
    """What is raised in place of an error of plugged-in code that recloop called; None for an error of our own.

    The message names the method, its call and the error; a note holds the traceback from that call on.
    """
    trace = error.__traceback__
    while trace is not None and not _is_plugged_in(trace.tb_frame):
        trace = trace.tb_next
    if trace is None:
        return None
    last = trace
    while last.tb_next is not None and _is_plugged_in(last.tb_next.tb_frame):
        last = last.tb_next
    place = f"{Path(last.tb_frame.f_code.co_filename).name}, line {last.tb_lineno}"
    said = f"{type(error).__name__}({error})" if isinstance(error, SystemExit) else f"{type(error).__name__}: {error}"
    fault = PlugInError(f"{_call(trace.tb_frame)} raised {said} ({place}); --debug shows the traceback")
    fault.add_note("".join(traceback.format_exception(type(error), error, trace)))
    return fault


def _is_plugged_in(frame: FrameType) -> bool:
    """Whether a person's code runs in it: not ours, and not a library's, unless that offers classes of our kinds."""
    path = frame.f_code.co_filename
    if path.startswith(("<", *_OURS)):
        return False
    if not (path.startswith(_STANDARD) or "site-packages" in path or "dist-packages" in path):
        return True
    name = frame.f_globals.get("__name__")
    kinds = [kind for kind in _kind_of(frame).__mro__ if kind.__module__ == name]
    return any(is_ours(base) for kind in kinds for base in kind.__mro__)


def _kind_of(frame: FrameType) -> type:
    """The class of a method's first argument; `type(None)` in a function without one."""
    names = inspect.getargs(frame.f_code).args
    first = frame.f_locals.get(names[0]) if names and names[0] in ("self", "cls") else None
    return first if isinstance(first, type) else type(first)


def _call(frame: FrameType) -> str:
    """`my_module:MyPolicy.act(observation, carry=None, k=5, draw)`: values where they are short."""
    code, module = frame.f_code, frame.f_globals.get("__name__", "?")
    if code.co_name == "<module>":
        return f"importing {module}"
    names = inspect.getargs(code).args
    kind = _kind_of(frame)
    name = f"{module}:{code.co_qualname}"
    if kind is not type(None):
        name, names = f"{source_of(kind)}.{code.co_name}", names[1:]
    return f"{name}({', '.join(_argument(name, frame.f_locals.get(name)) for name in names)})"


def _argument(name: str, value: Any) -> str:
    if value is None or isinstance(value, bool | int | float):
        return f"{name}={value}"
    return f"{name}: {in_one_line(value)}" if hasattr(value, "shape") and hasattr(value, "dtype") else name
