"""`recloop trajectories`: of a policy and of the log, and what it refuses."""

from pathlib import Path

import minari
import numpy as np
import pytest

from recloop.envs.trajectories.files import read_trajectories
from recloop.experiments.cli import main


def test_a_policy_is_recorded_and_the_environment_recovered_replays_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "random-v0"
    main(["trajectories", str(folder), "--policy", "random", "--episodes", "5", "--out", str(out), "--seed", "3"])
    assert "5 episodes, " in capsys.readouterr().out
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    data = minari.load_dataset("random-v0")
    env = data.recover_environment()
    told = list(data.storage.get_episode_metadata(data.episode_indices))
    for episode, facts in zip(data.iterate_episodes(), told, strict=True):
        seen, _ = env.reset(seed=facts["seed"], options={"lanes": int(facts["options"]["lanes"])})
        for step, action in enumerate(episode.actions):
            assert all(np.allclose(episode.observations[key][step], value, atol=1e-5) for key, value in seen.items())
            seen, reward, *_ = env.step(action)
            assert reward == pytest.approx(episode.rewards[step], abs=1e-5)
    # 40 items, all equally likely, none twice
    known = read_trajectories(out).propensity
    assert np.allclose(known[~np.isnan(known)].reshape(-1, 3), 1 / np.array([40, 39, 38]), rtol=0.2)


def test_the_log_is_written_as_parquet(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["trajectories", str(folder), "--format", "parquet", "--out", str(tmp_path / "log")]
    main(command)
    found = read_trajectories(tmp_path / "log")
    assert found.about["source"] == "log"
    assert (found.lanes == -1).all()
    assert f"{len(found):,} episodes, {len(found.rewards):,} steps" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*command, "--episodes", "2"])
    assert "holds another folder of trajectories: its episodes is None, here it is 2" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*command, "--slate-size", "1", "--overwrite"])
    assert "--simulator and --slate-size belong to a policy" in capsys.readouterr().err
