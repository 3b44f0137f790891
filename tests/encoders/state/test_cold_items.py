import torch
from torch import Tensor

from recloop.encoders.state.next_item import RIDGES, fit_ridge, popularity_of_unseen


def _planted(noise: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """300 items whose log-popularity lies along one direction; the last 60 are unseen and fitted at -9."""
    generator = torch.Generator().manual_seed(5)
    vectors = torch.nn.functional.normalize(torch.randn(300, 8, generator=generator), dim=1)
    true = 3 * vectors[:, 0] - 4 + noise * torch.randn(300, generator=generator)
    fitted, counts = true.clone(), torch.full((300,), 7)
    fitted[240:], counts[240:] = -9.0, 0
    return vectors, fitted, counts, true


def test_planted_popularity_is_found() -> None:
    vectors, fitted, counts, true = _planted(noise=0.2)
    found = popularity_of_unseen(vectors, fitted, counts)
    assert torch.equal(found[:240], fitted[:240])
    assert found.dtype is torch.float32
    assert torch.corrcoef(torch.stack([found[240:], true[240:]]))[0, 1] > 0.95


def test_content_that_says_nothing_gives_what_any_item_may_expect() -> None:
    vectors, fitted, counts, _ = _planted(noise=0.2)
    mixed = vectors[torch.randperm(300, generator=torch.Generator().manual_seed(0))]
    guessed, seen = popularity_of_unseen(mixed, fitted, counts), counts > 0
    assert torch.equal(guessed[seen], fitted[seen])
    torch.testing.assert_close(guessed[~seen], fitted[seen].exp().mean().log().expand(int((~seen).sum())))


def test_left_out_errors_equal_those_of_refitting() -> None:
    """The closed form against a plain loop that leaves each item out in turn, at every ridge."""
    vectors, fitted, _, _ = _planted(noise=1.0)
    x, y = vectors[:60].double(), fitted[:60].double()
    # Slope and mean leave the item out. The centre is that of all 60: the slope does not hang on where zero lies.
    inputs = torch.cat([x - x.mean(0), torch.ones(60, 1)], dim=1)
    squares = []
    for ridge in RIDGES:
        penalty = torch.diag(torch.tensor([ridge] * 8 + [0.0], dtype=torch.float64))
        error = 0.0
        for out in range(60):
            kept = torch.cat([inputs[:out], inputs[out + 1 :]])
            targets = torch.cat([y[:out], y[out + 1 :]])
            weights = torch.linalg.solve(kept.T @ kept + penalty, kept.T @ targets)
            error += float((y[out] - inputs[out] @ weights) ** 2)
        squares.append(error)
    alone = sum(float((y[out] - (y.sum() - y[out]) / 59) ** 2) for out in range(60))
    assert abs(fit_ridge(x, y).explained - (1 - min(squares) / alone)) < 1e-9


def test_predictions_stay_within_what_was_seen() -> None:
    vectors, fitted, counts, _ = _planted(noise=0.0)
    vectors[-1] = 100 * torch.eye(8)[0]
    assert popularity_of_unseen(vectors, fitted, counts)[-1] == fitted[:240].max()


def test_too_few_seen_items_change_nothing() -> None:
    vectors, fitted, counts, _ = _planted(noise=0.2)
    counts[19:] = 0
    assert torch.equal(popularity_of_unseen(vectors, fitted, counts), fitted)


def test_equal_popularity_is_no_reason_to_fail() -> None:
    vectors, _, counts, _ = _planted(noise=0.2)
    assert torch.equal(popularity_of_unseen(vectors, torch.zeros(300), counts), torch.zeros(300))
