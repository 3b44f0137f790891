"""Where a result comes from: command, commit, versions, device, threads."""

import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from recloop.encoders.base.errors import RecloopError

PACKAGES = ("recloop", "torch", "numpy", "numba", "gymnasium", "stable-baselines3", "sb3-contrib", "transformers")
"""Packages whose versions a run records; without numba a step has other last bits."""

_THREADS_A_CORE, _FEW_THREADS = 4, 64
"""Threads that may be asked for: so many a core, but never fewer than this."""


def provenance(device: str) -> dict[str, Any]:
    """Facts for `run.json` that do not change while a run goes on."""
    import torch

    return {
        "command": command(),
        "commit": commit(),
        "versions": {"python": platform.python_version(), **versions()},
        "device": device_name(device),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
    }


def command() -> str:
    """The command line, as one can type it again; a password in a graph server's URL is left out."""
    from recloop.encoders.knowledge.stores import without_password

    given = []
    for argument in sys.argv[1:]:
        option, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
        given.append(option + equals + without_password(value))
    script, module = Path(sys.argv[0]), getattr(sys.modules["__main__"], "__spec__", None)
    name = script.name if script.suffix != ".py" else f"python {script}"
    if module is not None and script.suffix == ".py":  # python -m
        name = f"python -m {module.name}"
    return shlex.join([*shlex.split(name), *given])


RESULTS = "experiments/results"


def commit() -> str | None:
    """Commit of the source tree this package runs from, `-dirty` with changes on top; None where it is installed.

    Tables of measured figures are what runs write, and no change.
    """
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        head = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", f":!{RESULTS}")
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{head}-dirty" if changed else head


def short_commit(whole: str | None) -> str:
    """Seven letters, and whether there were changes on top; empty where nobody knows.

    >>> short_commit("3f2a91c0d4e5b6a7-dirty")
    '3f2a91c-dirty'
    """
    return "" if whole is None else whole[:7] + ("-dirty" if whole.endswith("-dirty") else "")


def made_by() -> dict[str, str]:
    """What the rows of a table say of where they come from: `command` and `commit`."""
    return {"command": command(), "commit": short_commit(commit())}


def versions() -> dict[str, str]:
    """Installed versions of `PACKAGES`."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def device_name(device: str) -> str:
    """A device in words."""
    import torch

    if device.startswith("cuda") and torch.cuda.is_available():
        return f"{device} ({torch.cuda.get_device_name(torch.device(device))})"
    return f"{device} ({os.cpu_count()} cores)"


def use_threads(threads: int | None) -> None:
    """Set how many threads torch uses; None leaves it to OMP_NUM_THREADS, else to torch.

    Raises:
        RecloopError: for so many that the system may give none.
    """
    import torch

    if threads is None:
        return
    cores = os.cpu_count() or 1
    most = max(_THREADS_A_CORE * cores, _FEW_THREADS)
    if threads > most:
        raise RecloopError(f"--threads {threads} is too many for {cores} cores; give 1 to {most}")
    torch.set_num_threads(threads)


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True, timeout=20)
    return done.stdout.strip()
