"""The errors a person may meet: one line each, naming the value, the limit and the way out.

The command line prints a `RecloopError` as one line and exits with code 2; anything else is a defect.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class RecloopError(Exception):
    """Bad input or a missing resource: the message names the value, the limit and the way out."""


class LogError(RecloopError):
    """A log that cannot be read as it is."""


class WorldError(RecloopError):
    """A world folder that is broken, half-written, or from a newer format."""


class EncoderError(RecloopError):
    """An encoder that cannot be loaded or does not fit."""


class PolicyError(RecloopError):
    """An unknown, broken or unfitting policy."""


class UserSimulatorError(RecloopError):
    """A user simulator that breaks its contract."""


class PlugInError(RecloopError):
    """An error raised by code that a person plugged in; a note holds its traceback."""


class LanguageModelError(RecloopError):
    """A language model that cannot be asked, or whose answers are of no use."""


class BudgetError(LanguageModelError):
    """The budget of calls or money is spent; what was answered is kept."""


class DeviceError(RecloopError):
    """A torch device that is not there."""


_LISTED = 40
"""Known names that a message lists."""


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """The message for a name nobody knows: suggests the nearest and lists the rest.

    >>> unknown_name("policy", "popularty", ["random", "popularity"])
    "unknown policy 'popularty'; did you mean 'popularity'? Known: popularity, random"
    """
    known = sorted(known)
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    more = f" and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
    return f"unknown {what} '{name}'; {hint}Known: {', '.join(known[:_LISTED])}{more}"
