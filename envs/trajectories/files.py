"""Trajectories on disk: as a Minari data set, and as Parquet.

A folder holds `trajectories.json`, and in format `minari` a data set in `data/`, which Minari and what builds on it
read; in `parquet` `steps.parquet`, a row a step, and `ends.parquet`, a row an episode, with its last observation.

    MINARI_DATASETS_PATH=data python -c "import minari; minari.load_dataset('ml-100k-v0')"    # it is data/ml-100k-v0
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from gymnasium.envs.registration import EnvSpec

from recloop.encoders.base.errors import RecloopError
from recloop.encoders.base.manifest import check_files
from recloop.encoders.base.storage import read_json, replacing_folder, write_json
from recloop.envs.trajectories.episodes import Arrays, Trajectories, spaces_of
from recloop.envs.world.world import World

Format = Literal["minari", "parquet"]
MARKER = "trajectories.json"
"""File that shows that a folder holds trajectories."""
_ENVIRONMENT = ("recloop/Recommend-v0", "recloop.envs.skins.gym_env:RecommendEnv")
_STEPS = ("actions", "rewards", "terminated", "truncated")
_INFOS = ("slates", "answers", "given", "propensity")
_EPISODES = ("users", "lanes")
_NAMED = re.compile(r"[-_\w]+-v\d+")


def write_trajectories(
    found: Trajectories,
    world: World,
    folder: Path,
    format: Format = "minari",
    made_with: Mapping[str, Any] | None = None,
    world_folder: Path | None = None,
) -> None:
    """Write a folder; it is replaced whole or not at all.

    Args:
        found: what is written.
        world: where it was recorded.
        folder: for Minari called NAME-v0, as its data sets are.
        format: `minari` or `parquet`.
        made_with: settings that its manifest keeps.
        world_folder: where the world lies, so that `MinariDataset.recover_environment` finds it.

    Raises:
        RecloopError: an unknown format, a name that Minari does not take, or Minari is not installed.
    """
    if format not in get_args(Format):
        raise RecloopError(f"format '{format}'; choose {' or '.join(get_args(Format))}")
    if format == "minari":
        _minari()
        if not _NAMED.fullmatch(folder.name):
            raise RecloopError(f"{folder.name} is no name of a Minari data set; name the folder NAME-v0")
    with replacing_folder(folder, made_with) as part:
        write_json(part / MARKER, {"format": format, "about": dict(found.about)})
        if format == "minari":
            _write_minari(found, world, part / "data", folder.name, world_folder)
        else:
            _write_parquet(found, part)


def read_trajectories(folder: Path | str) -> Trajectories:
    """Read what `write_trajectories` wrote; `RecloopError` where it is missing or damaged."""
    folder = Path(folder)
    if not (folder / MARKER).exists():
        what = f"is no folder of trajectories ({MARKER} is missing)" if folder.exists() else "does not exist"
        raise RecloopError(f"{folder} {what}; write one with `recloop trajectories WORLD --out {folder}`")
    check_files(folder, required=True)
    facts = read_json(folder / MARKER)
    read = _read_minari if facts["format"] == "minari" else _read_parquet
    return read(folder, facts["about"])


def _write_minari(found: Trajectories, world: World, data: Path, name: str, world_folder: Path | None) -> None:
    minari = _minari()
    from minari.dataset.minari_storage import MinariStorage

    about = found.about
    observations, actions = spaces_of(world.spec(found.slates.shape[1]), about["observation"])
    spec = None
    if world_folder is not None:
        kwargs = {"world": str(world_folder.resolve()), "observation": about["observation"], **about["environment"]}
        mode = "item" if found.slates.shape[1] == 1 else "slate"
        spec = EnvSpec(_ENVIRONMENT[0], entry_point=_ENVIRONMENT[1], kwargs={"action_mode": mode, **kwargs})
    data.mkdir()
    storage = MinariStorage.new(data, observation_space=observations, action_space=actions, env_spec=spec)
    told = {"algorithm_name": about["policy"]} if about["policy"] else {}
    text = f"Slates shown in the recloop world {about['world']}, by {about['policy'] or 'its log'}."
    storage.update_metadata(
        {"dataset_id": name, "minari_version": minari.__version__, "description": text, "recloop": dict(about), **told}
    )
    storage.update_episodes(_buffers(found))


def _buffers(found: Trajectories) -> Iterator[Any]:
    """Episodes as Minari takes them; the first of the infos is that of `reset`, as its collector has it."""
    from minari.data_collector import EpisodeBuffer

    infos = {name: getattr(found, name) for name in _INFOS}
    for e, (start, end) in enumerate(zip(found.offsets[:-1], found.offsets[1:], strict=True)):
        moments = slice(start + e, end + e + 1)
        seen = {key: value[moments] for key, value in found.observations.items()}
        steps = {name: _after_reset(value[start:end]) for name, value in infos.items()}
        repeats = found.lanes[e] >= 0
        yield EpisodeBuffer(
            seed=found.about["seed"] if repeats else None,
            options={"lanes": int(found.lanes[e])} if repeats else None,
            observations=seen["state"] if found.flat else seen,
            actions=found.actions[start:end],
            rewards=found.rewards[start:end],
            terminations=found.terminated[start:end],
            truncations=found.truncated[start:end],
            infos={**steps, "user": np.full(end - start + 1, found.users[e])},
        )


def _after_reset(values: Arrays) -> Arrays:
    """One row more, in front, that tells nothing."""
    fill = np.nan if values.dtype.kind == "f" else 0
    return np.concatenate([np.full_like(values[:1], fill), values])


def _read_minari(folder: Path, about: Mapping[str, Any]) -> Trajectories:
    data = _minari().MinariDataset(folder / "data")
    episodes = list(data.iterate_episodes())
    told = data.storage.get_episode_metadata(data.episode_indices)
    flat = about["observation"] == "state"
    seen = [{"state": one.observations} if flat else one.observations for one in episodes]
    return Trajectories(
        about=about,
        offsets=np.cumsum([0, *(len(one) for one in episodes)]),
        observations={key: np.concatenate([one[key] for one in seen]) for key in seen[0]},
        actions=np.concatenate([one.actions for one in episodes]),
        rewards=np.concatenate([one.rewards for one in episodes]),
        terminated=np.concatenate([one.terminations for one in episodes]),
        truncated=np.concatenate([one.truncations for one in episodes]),
        users=np.array([one.infos["user"][0] for one in episodes]),
        lanes=np.array([int(one.get("options", {}).get("lanes", -1)) for one in told]),
        **{name: np.concatenate([one.infos[name][1:] for one in episodes]) for name in _INFOS},
    )


def _write_parquet(found: Trajectories, folder: Path) -> None:
    last = found.offsets[1:] + np.arange(len(found))  # of each episode, among all moments
    steps = np.delete(np.arange(len(found.rewards) + len(found)), last)
    seen = {f"observation.{key}": value for key, value in found.observations.items()}
    told = {name: getattr(found, name) for name in (*_STEPS, *_INFOS)}
    table = {"episode": found.episode, **{name: value[steps] for name, value in seen.items()}, **told}
    ends = {name: value[last] for name, value in seen.items()} | {name: getattr(found, name) for name in _EPISODES}
    pq.write_table(_table(table), folder / "steps.parquet")
    pq.write_table(_table(ends), folder / "ends.parquet")


def _read_parquet(folder: Path, about: Mapping[str, Any]) -> Trajectories:
    steps, ends = (_arrays(pq.read_table(folder / f"{name}.parquet")) for name in ("steps", "ends"))
    count = np.bincount(steps.pop("episode"), minlength=len(ends["users"]))
    offsets = np.concatenate([[0], np.cumsum(count)])
    seen = {}
    for name in [name for name in ends if name.startswith("observation.")]:
        value = np.insert(steps.pop(name), offsets[1:], ends.pop(name), axis=0)
        seen[name.removeprefix("observation.")] = value
    return Trajectories(about=about, offsets=offsets, observations=seen, **steps, **ends)


def _table(arrays: Mapping[str, Arrays]) -> pa.Table:
    """A column an array: lists of a fixed length where it has more than one dimension, whose shape its field tells."""
    columns, fields = [], []
    for name, value in arrays.items():
        column = pa.array(value.reshape(-1))
        if value.ndim > 1:
            column = pa.FixedSizeListArray.from_arrays(column, int(np.prod(value.shape[1:])))
        columns.append(column)
        fields.append(pa.field(name, column.type, metadata={"shape": ",".join(map(str, value.shape[1:]))}))
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def _arrays(table: pa.Table) -> dict[str, Arrays]:
    """Undo `_table`."""
    found = {}
    for field in table.schema:
        column = table[field.name].combine_chunks()
        shape = [int(size) for size in field.metadata[b"shape"].decode().split(",") if size]
        flat = column.flatten() if shape else column
        found[field.name] = np.array(flat.to_numpy(zero_copy_only=False)).reshape(len(table), *shape)  # writable
    return found


def _minari() -> Any:
    try:
        import h5py  # noqa: F401 - how Minari stores by default
        import minari
    except ImportError:
        raise RecloopError(
            "Minari data sets need minari and h5py; pip install 'recloop[offline]', or take --format parquet"
        ) from None
    return minari
