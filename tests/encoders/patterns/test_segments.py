"""Segments: the planted ones are found, in the planted number, and assigned as scikit-learn assigns them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from torch import Tensor
from torch.nn import functional as F

from recloop.encoders.base.errors import EncoderError
from recloop.encoders.patterns import Portrait, UserSegments

LEANINGS = torch.eye(4)[:3] * 3


def users_of(groups: int, each: int = 30, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Behaviour vectors (groups * each, 4) about as many leanings, and each user's group."""
    group = torch.arange(groups).repeat_interleave(each)
    noise = torch.randn(len(group), 4, generator=torch.Generator().manual_seed(seed)) * 0.3
    return LEANINGS[group] + noise, group


@pytest.mark.parametrize("groups", [2, 3])
def test_the_silhouette_chooses_the_planted_number(groups: int) -> None:
    vectors, group = users_of(groups)
    segments = UserSegments.fit(vectors)
    assert segments.k == groups
    assert segments.dim == groups + 1
    assert set(segments.silhouettes) == set(range(2, 11))
    assert max(segments.silhouettes, key=lambda k: segments.silhouettes[k]) == groups
    found = segments.assign(vectors)
    pairs = set(zip(group.tolist(), found.tolist(), strict=True))
    assert len(pairs) == groups, "every planted group is one segment"


def test_the_silhouettes_are_read_back_in_order(tmp_path: Path) -> None:
    segments = UserSegments.fit(users_of(3)[0])
    segments.save(tmp_path / "segments")
    assert list(UserSegments.load(tmp_path / "segments").silhouettes.items()) == list(segments.silhouettes.items())


def test_it_assigns_as_scikit_learn_does() -> None:
    vectors, _ = users_of(3)
    segments = UserSegments.fit(vectors, 5, seed=3)
    points = F.normalize(vectors.double() - vectors.double().mean(0), dim=1).numpy()
    theirs = KMeans(5, n_init=4, random_state=3).fit(points)
    strangers, _ = users_of(3, seed=9)
    there = F.normalize(strangers.double() - vectors.double().mean(0), dim=1).numpy()
    order = [int(np.abs(theirs.cluster_centers_ - c.numpy()).sum(1).argmin()) for c in segments.centres]
    assert sorted(order) == list(range(5))
    assert [order[s] for s in segments.assign(strangers).tolist()] == theirs.predict(there).tolist()


def test_users_without_a_history_are_a_segment_of_their_own() -> None:
    vectors, _ = users_of(2)
    segments = UserSegments.fit(torch.cat([vectors, torch.zeros(50, 4)]), 2)
    assert torch.equal(segments.centres, UserSegments.fit(vectors, 2).centres), "they move no centre"
    assert segments.assign(torch.zeros(1, 4)).item() == 2
    assert segments.encode(torch.zeros(1, 4)).tolist() == [[0.0, 0.0, 1.0]]
    assert segments.names[-1] == "no history"


def test_nobody_with_a_history_is_one_segment() -> None:
    segments = UserSegments.fit(torch.zeros(4, 3))
    assert (segments.dim, segments.assign(torch.zeros(2, 3)).tolist()) == (1, [0, 0])


def test_users_who_are_all_alike_are_one_segment() -> None:
    segments = UserSegments.fit(torch.ones(6, 3))
    assert (segments.k, segments.silhouettes) == (1, {})
    assert segments.assign(torch.ones(2, 3)).tolist() == [0, 0]


def test_equal_seeds_give_equal_segments() -> None:
    vectors, _ = users_of(3)
    assert torch.equal(UserSegments.fit(vectors, seed=5).centres, UserSegments.fit(vectors, seed=5).centres)


def test_portraits_name_the_segments() -> None:
    vectors, _ = users_of(2)
    segments = UserSegments.fit(vectors).named([Portrait(("Comedy",), ("Airplane! (1980)",)), Portrait()])
    assert segments.names == ("Comedy; Airplane! (1980)", "nothing sets it apart", "no history")


def test_bad_input_is_one_line() -> None:
    vectors, _ = users_of(2, each=3)
    with pytest.raises(EncoderError, match=r"9 segments of 6 distinct user\(s\).*choose 1 to 6"):
        UserSegments.fit(vectors, 9)
    with pytest.raises(EncoderError, match="1 behaviour vector"):
        UserSegments.fit(torch.cat([vectors, torch.full((1, 4), float("nan"))]))
    with pytest.raises(EncoderError, match=r"need \(B, 4\)"):
        UserSegments.fit(vectors).assign(torch.ones(2, 5))
    with pytest.raises(EncoderError, match="1 portraits for 2 segments"):
        UserSegments.fit(vectors, 2).named([Portrait()])
