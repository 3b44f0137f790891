"""Trainings on disk, so that an interrupted one goes on bit for bit: safetensors and JSON, replaced whole."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recloop.encoders.base.errors import PolicyError, RecloopError
from recloop.encoders.base.manifest import ANEW, check_files, difference
from recloop.encoders.base.replacing import sweep
from recloop.encoders.base.storage import (
    json_like,
    read_json,
    read_tensors,
    replacing_folder,
    write_json,
    write_tensors,
)
from recloop.encoders.base.tensor_struct import TensorStruct

FORMAT = 3
"""Version of the checkpoint's layout; another one is refused."""


@dataclass(frozen=True)
class Checkpoint:
    """A training between two updates.

    Args:
        facts: what the training is: learner, config, seed, world. A checkpoint goes on in an equal training only.
        counters: numbers that training goes on from, as JSON.
        parts: tensors by name, of each part of the training: learner, core, best weights, ...
    """

    facts: Mapping[str, Any]
    counters: Mapping[str, Any]
    parts: Mapping[str, Mapping[str, Tensor]]

    def save(self, folder: Path) -> None:
        """Write a folder; a killed run leaves the last good one."""
        facts = {"format": FORMAT, "facts": self.facts, "counters": self.counters, "circumstances": _circumstances()}
        with replacing_folder(folder) as part:
            for name, tensors in self.parts.items():
                write_tensors(part / f"{name}.safetensors", tensors)
            write_json(part / "checkpoint.json", {**facts, "parts": sorted(self.parts)})


def load_checkpoint(folder: Path, facts: Mapping[str, Any]) -> Checkpoint | None:
    """Read what `Checkpoint.save` wrote; None where there is no folder yet, or an empty one.

    Args:
        folder: where.
        facts: of the training that is to go on.

    Raises:
        PolicyError: the folder holds something else, is damaged, or is of another training; the message names both.
    """
    if not folder.exists():
        sweep(folder.parent)  # a writer may have been killed while it replaced the folder
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    if not (folder / "checkpoint.json").is_file():
        raise PolicyError(f"{folder} is no checkpoint (checkpoint.json is missing); name a new folder")
    try:
        found = read_json(folder / "checkpoint.json")
        if found.get("format") != FORMAT:
            raise PolicyError(
                f"the checkpoint {folder} has format {found.get('format')}, this recloop reads {FORMAT}; name a new "
                "folder, or go on with the recloop that wrote it"
            )
        check_files(folder, required=True)
        _check_same(folder, found["facts"], json_like(facts))
        _warn_of_change(folder, found["circumstances"])
        parts = {name: read_tensors(folder / f"{name}.safetensors") for name in found["parts"]}
        return Checkpoint(found["facts"], found["counters"], parts)
    except PolicyError:
        raise
    except (RecloopError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split()).removesuffix(f"; {ANEW}") or type(error).__name__
        raise PolicyError(f"the checkpoint {folder} is damaged: {reason}; remove it to train anew") from error


def flattened(tree: Any, name: str = "") -> dict[str, Tensor]:
    """The tensors of nested dataclasses, tuples and mappings by dotted name; None holds none.

    Raises PolicyError for anything else: Python objects cannot be kept without pickling them.
    """
    if tree is None:
        return {}
    if isinstance(tree, Tensor):
        return {name: tree}
    parts = _parts(tree)
    if parts is None:
        raise PolicyError(
            f"{name.lstrip('.') or 'the state'} holds a {type(tree).__name__}, which a checkpoint cannot keep; train "
            "without --checkpoint, or with users whose state is tensors"
        )
    dotted = name + "." if name else ""
    return {key: value for part, held in parts.items() for key, value in flattened(held, dotted + part).items()}


def rebuilt(tree: Any, tensors: Mapping[str, Tensor], name: str = "") -> Any:
    """A tree shaped like `tree` that holds the tensors `flattened` gave, each on the device of its predecessor."""
    if tree is None:
        return None
    if isinstance(tree, Tensor):
        found = tensors[name]
        if found.shape != tree.shape or found.dtype != tree.dtype:
            raise PolicyError(
                f"'{name}' is {found.dtype} {tuple(found.shape)} in the checkpoint and {tree.dtype} "
                f"{tuple(tree.shape)} here; remove the checkpoint to train anew"
            )
        return found.to(tree.device, copy=True)
    dotted = name + "." if name else ""
    parts = {part: rebuilt(held, tensors, dotted + part) for part, held in (_parts(tree) or {}).items()}
    if is_dataclass(tree) and not isinstance(tree, type):
        return replace(tree, **parts)
    return tuple(parts.values()) if isinstance(tree, tuple) else parts


def within(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """What stands below `part.`, by the rest of its name."""
    return {name[len(part) + 1 :]: value for name, value in tensors.items() if name.startswith(f"{part}.")}


class KeptFit:
    """A supervised fit on disk, after every pass; see `recloop.encoders.base.fit.KeepsFit`.

    Args:
        folder: where.
        facts: what the fit is: an interrupted one goes on in an equal one only.
        generators: what it draws from.
        resumed: told the last pass that is kept, before anything is logged.
    """

    def __init__(
        self,
        folder: Path,
        facts: Mapping[str, Any],
        generators: Mapping[str, torch.Generator],
        resumed: Callable[[int], None] | None = None,
    ) -> None:
        self.folder, self.facts, self.generators, self.resumed = folder, facts, generators, resumed

    def load(self) -> tuple[Mapping[str, Any], Mapping[str, Mapping[str, Tensor]]] | None:
        """What is kept; None where there is no folder yet, or an empty one."""
        found = load_checkpoint(self.folder, self.facts)
        if found is None:
            return None
        if self.resumed is not None:
            self.resumed(len(found.counters["passes"]))
        return found.counters, found.parts

    def save(self, counters: Mapping[str, Any], parts: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Replace what is kept."""
        Checkpoint(self.facts, counters, parts).save(self.folder)


def restore_module(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Undo `module.state_dict()`; every tensor must be there."""
    module.load_state_dict(dict(tensors), strict=True)


def _parts(tree: Any) -> dict[str, Any] | None:
    if isinstance(tree, TensorStruct):
        return tree.held()
    if is_dataclass(tree) and not isinstance(tree, type):
        return {f.name: getattr(tree, f.name) for f in fields(tree)}
    if isinstance(tree, tuple):
        return {str(place): held for place, held in enumerate(tree)}
    return dict(tree) if isinstance(tree, Mapping) else None


def _circumstances() -> dict[str, Any]:
    return {"recloop": version("recloop"), "torch": torch.__version__, "threads": torch.get_num_threads()}


def _check_same(folder: Path, theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
    differs = difference(theirs, mine, everything=True)
    if differs is not None:
        raise PolicyError(
            f"the checkpoint {folder} is of another training: {differs}; name another folder, or go on with its "
            "settings"
        )


def _warn_of_change(folder: Path, theirs: Mapping[str, Any]) -> None:
    mine = _circumstances()
    changed = [f"{name} {theirs.get(name)} then, {mine[name]} now" for name in mine if theirs.get(name) != mine[name]]
    if changed:
        warnings.warn(
            f"the checkpoint {folder} goes on, but not bit for bit: {'; '.join(changed)}", RuntimeWarning, stacklevel=3
        )
