"""Advantages against a loop that one can read."""

import torch

from recloop.agents.learners.on_policy.actor_critic import estimated_advantages


def plain(reward, value, next_value, terminated, truncated, gamma, trace):  # type: ignore[no-untyped-def]
    """One lane, one step after the other."""
    advantages, after = [], 0.0
    for step in reversed(range(len(reward))):
        worth = 0.0 if terminated[step] else next_value[step]
        surprise = reward[step] + gamma * worth - value[step]
        after = surprise if terminated[step] or truncated[step] else surprise + gamma * trace * after
        advantages.append(after)
    return advantages[::-1]


def test_they_equal_a_plain_loop_over_lanes_and_steps() -> None:
    generator = torch.Generator().manual_seed(0)
    reward, value, following = torch.randn(3, 9, 5, generator=generator)
    terminated = torch.rand(9, 5, generator=generator) < 0.2
    truncated = (torch.rand(9, 5, generator=generator) < 0.2) & ~terminated
    found = estimated_advantages(reward, value, following, 0.9 * ~terminated, terminated | truncated, 0.7)
    columns = (reward, value, following, terminated, truncated)
    for lane in range(5):
        wanted = plain(*(column[:, lane].tolist() for column in columns), 0.9, 0.7)
        torch.testing.assert_close(found[:, lane], torch.tensor(wanted))


def test_who_left_is_owed_nothing_and_who_was_cut_off_is() -> None:
    reward, value = torch.tensor([[1.0, 1.0]]), torch.tensor([[0.5, 0.5]])
    following = torch.tensor([[4.0, 4.0]])
    left, cut = torch.tensor([[True, False]]), torch.tensor([[False, True]])
    found = estimated_advantages(reward, value, following, 0.5 * ~left, left | cut, 1.0)
    assert found.tolist() == [[0.5, 2.5]]


def test_a_trace_of_one_gives_returns_of_n_steps() -> None:
    reward, value = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[10.0], [20.0], [30.0]])
    following = torch.tensor([[20.0], [30.0], [8.0]])
    never = torch.zeros(3, 1, dtype=torch.bool)
    found = estimated_advantages(reward, value, following, 0.5 * ~never, never, 1.0) + value
    assert found[:, 0].tolist() == [1 + 1 + 1 + 1, 2 + 2 + 2, 4 + 4]
