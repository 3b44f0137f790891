"""What older versions of recloop wrote still loads, and answers as it did: one small artifact of every format."""

import json
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch

from recloop.agents.observed import Observed
from recloop.agents.registry import load_policy, make_policy, save_policy
from recloop.encoders.base.errors import WorldError
from recloop.envs.simulation.core import Core
from recloop.envs.world.world import World

DATA = Path(__file__).parent.parent / "data"
"""`recloop-VERSION.zip`: a world, a policy of it, a checkpoint, and `answers.json`, what they answered then."""


@pytest.fixture(params=sorted(path.name for path in DATA.glob("recloop-*.zip")))
def older(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    with ZipFile(DATA / request.param) as packed:
        packed.extractall(tmp_path)
    return tmp_path


def test_older_worlds_and_policies_answer_as_they_did(older: Path) -> None:
    then = json.loads((older / "answers.json").read_text())
    world, policy = World.load(older / "world"), load_policy(older / "policy")
    assert world.observation_fingerprint == then["fingerprint"]
    assert policy.recommend(Observed(history=[world.catalogue.ids[2]]), k=3) == then["recommended"]
    for name in ("truth", "factor"):
        core = Core(world, name, batch=4, users="all", seed=0)
        slates = torch.arange(12).view(4, 3)
        assert [round(float(core.step(slates).reward.sum()), 4) for _ in then[name]] == then[name]


def test_older_worlds_and_policies_are_written_anew_in_the_present_format(older: Path) -> None:
    world = World.load(older / "world")
    world.save(older / "world")
    save_policy(load_policy(older / "policy"), older / "policy")
    assert (older / "world" / "manifest.json").exists()
    assert World.load(older / "world").fingerprint == world.fingerprint
    make_policy(older / "policy", world)  # it is still of this world
    (older / "world" / "manifest.json").unlink()
    with pytest.raises(WorldError, match=r"manifest\.json is missing"):
        World.load(older / "world")
