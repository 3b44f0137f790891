"""One way to disk: facts as JSON and tensors as safetensors, in a folder that is replaced whole; no pickle."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from recloop.encoders.base.described import Described
from recloop.encoders.base.errors import EncoderError, RecloopError
from recloop.encoders.base.manifest import check_files
from recloop.encoders.base.storage import read_json, read_tensors, replacing_folder, write_json, write_tensors

_TIMES, _ROOM, _LEAST = 4, 1 << 26, 1 << 14
"""Numbers that a folder may ask for: so many a byte it holds, so many besides; a tensor counts as so many at least."""


class Artifact(Described):
    """What is kept as a folder: `FILE.json`, `FILE.safetensors` where there are tensors, and folders of its children.

    A subclass names its file and format and writes `stored_facts`, `stored_tensors`, `stored_children` and `restored`;
    `save` and `load` are written here once. A folder without a format is of format 1.

    Attributes:
        artifact_file: FILE.
        artifact_format: version of the layout. A newer one is refused; an older one goes through `migrated`.
        artifact_error: the error of a folder that cannot be read.
        artifact_tensors: name of the tensors' file where it is not FILE.
    """

    artifact_file: ClassVar[str]
    artifact_format: ClassVar[int] = 1
    artifact_error: ClassVar[type[RecloopError]] = EncoderError
    artifact_tensors: ClassVar[str] = ""

    def stored_facts(self) -> Mapping[str, Any]:
        """What the JSON file holds."""
        return {}

    def stored_tensors(self) -> Mapping[str, Tensor]:
        """What the safetensors file holds; none, no file."""
        return {}

    def stored_children(self) -> Mapping[str, "Artifact"]:
        """Artifacts of its own, by the name of their folder."""
        return {}

    @classmethod
    def restored(cls, facts: dict[str, Any], tensors: dict[str, Tensor], folder: Path, **context: Any) -> Self:
        """Made again from what was stored; children are loaded from `folder`."""
        raise NotImplementedError(f"{cls.__name__} does not say how it is read back")

    @classmethod
    def migrated(
        cls, facts: dict[str, Any], tensors: dict[str, Tensor], found: int
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What was stored under the older format `found`, as the present one has it; the default refuses it."""
        raise cls.artifact_error(f"format {found} is no longer read, this recloop reads {cls.artifact_format}")

    def write(self, folder: Path) -> None:
        """Write the files into a folder that is there."""
        for name, child in self.stored_children().items():
            child.save(folder / name)
        tensors = self.stored_tensors()
        if tensors:
            write_tensors(folder / f"{self.artifact_tensors or self.artifact_file}.safetensors", tensors)
        write_json(folder / f"{self.artifact_file}.json", {**self.stored_facts(), "format": self.artifact_format})

    def save(self, folder: Path | str) -> None:
        """Write the folder; it is replaced whole or not at all."""
        with replacing_folder(Path(folder)) as part:
            self.write(part)

    @classmethod
    def load(cls, folder: Path | str, **context: Any) -> Self:
        """Read what `save` wrote, onto the CPU.

        Args:
            context: what lies elsewhere, or settings that win over what was stored; see the class.

        Raises:
            RecloopError: of the class's kind, in one line, for a newer format or what does not fit.
        """
        path = Path(folder) / f"{cls.artifact_file}.json"
        facts = read_json(path)
        found = facts.pop("format", 1) if isinstance(facts, dict) else None
        if not isinstance(found, int):
            raise cls.artifact_error(f"{path} does not hold the facts of {cls.__name__}; make the folder anew")
        if found > cls.artifact_format:
            raise cls.artifact_error(
                f"{path} has format {found}, this recloop reads up to {cls.artifact_format}; upgrade recloop"
            )
        try:
            check_files(Path(folder), required=False)  # one inside another is held against that one's manifest
        except RecloopError as error:
            raise cls.artifact_error(str(error)) from None
        stored = path.with_name(f"{cls.artifact_tensors or cls.artifact_file}.safetensors")
        tensors = read_tensors(stored) if stored.exists() else {}
        try:
            if found < cls.artifact_format:
                facts, tensors = cls.migrated(facts, tensors, found)
            with Bounded(Path(folder)):
                return cls.restored(facts, tensors, Path(folder), **context)
        except KeyError as missing:
            raise cls.artifact_error(f"{path} or its tensors lack {missing}; make the folder anew") from None
        except Unfitting as error:
            raise cls.artifact_error(f"{stored} does not fit: {error}; make the folder anew") from None
        except (AttributeError, TypeError, ValueError) as error:  # facts of another shape than those that were stored
            reason = " ".join(str(error).split())
            raise cls.artifact_error(f"{path} or its tensors do not fit: {reason}; make the folder anew") from error


class Unfitting(Exception):
    """Stored tensors that do not fit the module they belong to."""


class Bounded(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Meanwhile tensors are made within a multiple of what a folder holds: sizes in its facts may be anything.

    Raises `Unfitting` before more memory is asked for.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._stored = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
        self._left = _TIMES * self._stored + _ROOM

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports its compiler, which takes longer than most loads

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count what is made of sizes alone, which is all that modules are made of."""
        size = args[0] if args and isinstance(args[0], list | tuple) else args  # of `empty`, or of `arange`
        if size and all(isinstance(number, int) for number in size):
            self._left -= max(max(size) if size is args else math.prod(size), _LEAST)
            if self._left < 0:
                raise Unfitting(f"its sizes ask for far more than the {self._stored:,} bytes that are stored")
        return func(*args, **(kwargs or {}))


def check_shapes(tensors: Mapping[str, Tensor], **shapes: tuple[int, ...]) -> None:
    """Raise `Unfitting` for the first stored tensor of another shape than the facts say: asked before anything of that
    size is made."""
    for name, shape in shapes.items():
        if tuple(tensors[name].shape) != shape:
            raise Unfitting(f"{name} is {tuple(tensors[name].shape)}, by its facts {shape}")


def fitted_module(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load tensors into a module; `Unfitting` says in one line what does not fit."""
    try:
        module.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise Unfitting(" ".join(str(error).split())) from None
