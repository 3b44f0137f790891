"""Policy folders written when parallel users were called lanes still load."""

from pathlib import Path

from recloop.agents.learners.loop import Training
from recloop.agents.learners.off_policy.sac import SAC, SACConfig
from recloop.agents.policy import FitOptions
from recloop.agents.registry import load_policy, save_policy
from recloop.encoders.base.manifest import Manifest
from recloop.encoders.base.storage import read_json, write_json
from recloop.envs.world.world import World


def test_settings_by_their_older_names_are_read(tiny_world: World, tmp_path: Path) -> None:
    config = SACConfig(num_envs=6, validation_episodes=5, buffer_size=600, learning_starts=12, batch_size=16)
    save_policy(Training(SAC, tiny_world, FitOptions(), config).policy, tmp_path / "policy")
    facts = read_json(tmp_path / "policy" / "policy.json")
    training = facts["config"]["training"]
    training["lanes"], training["validation_lanes"] = training.pop("num_envs"), training.pop("validation_episodes")
    write_json(tmp_path / "policy" / "policy.json", facts)
    Manifest.of(tmp_path / "policy").write(tmp_path / "policy")
    assert load_policy(tmp_path / "policy").config()["training"] == config.as_dict()
