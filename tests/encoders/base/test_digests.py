"""One number for what a value holds."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn

from recloop.encoders.base.digests import digest_of_value
from recloop.envs.truth.boredom import BoredomRules, BoredomUsers


@dataclass(frozen=True)
class Facts:
    name: str
    table: torch.Tensor


ONE = Facts("one", torch.arange(6.0))


@pytest.mark.parametrize(
    "value",
    [
        ONE,
        [1, 2.5, "a", None, True, {"b": (1, 2)}],
        torch.tensor(3.0),
        torch.zeros(2, 0),
        torch.arange(8).view(2, 4)[:, 1:2],
        torch.arange(4.0).to(torch.bfloat16),
        torch.arange(4.0).as_strided((1,), (2,)),
        np.arange(6).reshape(2, 3).T,
        nn.Linear(2, 3),
        digest_of_value,
        Facts,
    ],
)
def test_equal_contents_have_an_equal_digest(value: object) -> None:
    assert digest_of_value(value) == digest_of_value(value)
    assert digest_of_value(value) != digest_of_value([value])


def test_what_differs_has_another() -> None:
    others = [replace(ONE, name="two"), replace(ONE, table=torch.arange(6)), replace(ONE, table=torch.arange(6.0) + 1)]
    assert len({digest_of_value(one) for one in (ONE, *others, 1, 1.0, "1", True, [1], (1, 1))}) == 10


def test_the_rules_of_users_count() -> None:
    def users(rules: BoredomRules) -> BoredomUsers:
        return BoredomUsers(
            torch.full((2, 1), 0.5), torch.zeros(3, dtype=torch.int64), {"quality": torch.ones(3)}, rules
        )

    first = digest_of_value(users(BoredomRules()))
    assert first == digest_of_value(users(BoredomRules()))
    assert first != digest_of_value(users(BoredomRules(leave=0.02))), "another base rate"
