"""Next-item figures on real logs: leave-one-out, all items ranked, seen ones left out."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from recloop.agents import FitOptions
from recloop.agents.baselines.next_item import evaluate_next_item, without_last
from recloop.agents.sequence.config import SequenceConfig
from recloop.agents.sequence.training import train_sequence_model
from recloop.envs.logs.compile import compile_sequences
from recloop.envs.logs.readers import read_log
from recloop.envs.logs.sequences import Sequences

DATA = os.environ.get("RECLOOP_DATA")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(DATA is None, reason="RECLOOP_DATA is unset: it names the folder with the real logs"),
]


def sequences_of(name: str) -> Sequences:
    return compile_sequences(read_log(Path(DATA or "") / name))[0]


def test_popularity_on_ml_1m_is_what_was_counted_before() -> None:
    """Recall@10 0.0368 and NDCG@10 0.0179 were counted; equal counts in another order move single users."""
    sequences = sequences_of("ml-1m")
    counts = torch.from_numpy(without_last(sequences).popularity(np.arange(sequences.users)))
    figures = evaluate_next_item(lambda history: counts.expand(len(history), -1), sequences)
    assert figures.users == 6040
    assert figures.recall == pytest.approx(0.0368, abs=0.001)
    assert figures.ndcg == pytest.approx(0.0179, abs=0.0005)


def test_sasrec_on_ml_100k_is_far_above_popularity() -> None:
    sequences = sequences_of("ml-100k")
    train, users = without_last(sequences), np.arange(sequences.users)
    counts = torch.from_numpy(train.popularity(users))
    popularity = evaluate_next_item(lambda history: counts.expand(len(history), -1), sequences)
    model = train_sequence_model(train, users, SequenceConfig(), FitOptions(steps=8))
    sasrec = evaluate_next_item(model.scores, sequences, length=model.config.length)
    assert sasrec.ndcg > 1.5 * popularity.ndcg
    assert sasrec.recall > 0.15
