"""What a comparison has finished so far, beside its results: a killed run goes on where it was."""

import hashlib
import importlib.util
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recloop.encoders.base.errors import RecloopError
from recloop.encoders.base.manifest import check_files
from recloop.encoders.base.storage import read_json, read_tensors, replacing_folder, write_json, write_tensors
from recloop.envs.world.world import World
from recloop.experiments.comparison.evaluate import Rollout
from recloop.experiments.comparison.results import Curve


@dataclass(frozen=True)
class Finished:
    """One policy and seed, done.

    Args:
        rollouts: by simulator.
        curves: training curves by TensorBoard tag.
        fit_seconds, evaluate_seconds: wall-clock time it took.
        privileged, plans: see `results.Entry`.
    """

    rollouts: Mapping[str, Rollout]
    curves: Mapping[str, Curve] = field(default_factory=dict)
    fit_seconds: float = 0.0
    evaluate_seconds: float = 0.0
    privileged: bool = False
    plans: bool = False


class ResultStore:
    """Finished results in a folder, each under the digest of all that it depends on.

    A result whose digest differs from the one asked for (another world, other steps, other code) is not used.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, label: str, seed: int, digest: str) -> Finished | None:
        """A finished result, or None where there is none that fits."""
        place = self.folder / f"{label}-seed{seed}"
        if not (place / "facts.json").exists():
            return None
        try:
            check_files(place, required=True)
            facts = read_json(place / "facts.json")
            if facts["digest"] != digest:
                return None
            rollouts = {
                name: Rollout.of(read_tensors(place / f"{number}.safetensors"))
                for number, name in enumerate(facts["simulators"])
            }
            curves = {tag: [(int(s), float(v)) for s, v in points] for tag, points in facts["curves"].items()}
            times = (float(facts["fit_seconds"]), float(facts["evaluate_seconds"]))
            return Finished(rollouts, curves, *times, bool(facts["privileged"]), bool(facts["plans"]))
        except (RecloopError, KeyError, TypeError, ValueError):
            return None  # damaged: the result is made anew

    def has(self, label: str, seed: int) -> bool:
        """Whether there is a result, whatever it depends on."""
        return (self.folder / f"{label}-seed{seed}" / "facts.json").exists()

    def put(self, label: str, seed: int, digest: str, result: Finished) -> None:
        """Keep a result; replaced whole or not at all."""
        with replacing_folder(self.folder / f"{label}-seed{seed}") as part:
            for number, rollout in enumerate(result.rollouts.values()):
                write_tensors(part / f"{number}.safetensors", rollout.tensors())
            facts = {
                "digest": digest,
                "simulators": list(result.rollouts),
                "curves": result.curves,
                "fit_seconds": result.fit_seconds,
                "evaluate_seconds": result.evaluate_seconds,
                "privileged": result.privileged,
                "plans": result.plans,
            }
            write_json(part / "facts.json", facts)


def digest_of(facts: Mapping[str, Any]) -> str:
    """A number for a set of facts: equal facts, equal digest."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def digest_of_folder(folder: Path) -> str:
    """A number for the contents of a folder or file."""
    if folder.is_file():
        return hashlib.sha256(folder.read_bytes()).hexdigest()
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(str(path.relative_to(folder)).encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def digest_of_source(source: str) -> str:
    """A number for what a name stands for: a folder's contents, the module of a dotted path, else the name itself."""
    if Path(source).exists():
        return digest_of_folder(Path(source))
    if ":" in source:
        try:
            spec = importlib.util.find_spec(source.partition(":")[0])
        except (ImportError, ValueError):
            spec = None
        if spec is not None and spec.origin and Path(spec.origin).is_file():
            return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()
    return source


def digest_of_world(world: World, folder: Path | None = None) -> str:
    """A number for a world: its folder's contents where it has one, else its fingerprint and card."""
    if folder is not None:
        return digest_of_folder(folder)
    facts = {
        "fingerprint": world.fingerprint,
        "card": [world.card.learned, world.card.assumed, dict(world.card.figures)],
    }
    return digest_of(facts)


def file_safe(name: str) -> str:
    """A name as a file name.

    >>> file_safe("my package:MyPolicy")
    'my-package-MyPolicy'
    """
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "policy"
