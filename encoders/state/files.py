"""A state encoder as a folder."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from recloop.encoders.base.errors import EncoderError
from recloop.encoders.base.fit_report import FitReport
from recloop.encoders.base.storage import read_format, read_tensors, replacing_folder, write_json, write_tensors
from recloop.encoders.state.behavior import load_behavior
from recloop.encoders.state.config import StateEncoderConfig

if TYPE_CHECKING:
    from recloop.encoders.state.encoder import StateEncoder

FORMAT = 3


def write_state_encoder(encoder: StateEncoder, folder: Path) -> None:
    """Write `encoder.json`, `encoder.safetensors` and the folder `behavior`; the folder is replaced whole."""
    facts = {
        "format": FORMAT,
        "config": asdict(encoder.config),
        "catalogue_size": encoder.catalogue_size,
        "signal_bounds": encoder.signal_bounds,
        "profile_dim": encoder.profile_dim,
        "relations": encoder.relations,
        "entity_dim": encoder.key_projection.in_features if encoder.relations else 0,
        "report": asdict(encoder.report) if encoder.report else None,
        "behavior": encoder.behavior is not None,
    }
    with replacing_folder(folder) as part:
        write_tensors(part / "encoder.safetensors", encoder.state_dict())
        if encoder.behavior is not None:
            encoder.behavior.save(part / "behavior")
        write_json(part / "encoder.json", facts)


def read_state_encoder(kind: type[StateEncoder], folder: Path) -> StateEncoder:
    """Undo `write_state_encoder`, onto the CPU; `EncoderError` for another format, or tensors that do not fit."""
    facts = read_format(folder / "encoder.json", FORMAT)
    config = StateEncoderConfig(**facts["config"])
    n, r = facts["catalogue_size"], len(facts["relations"])
    encoder = kind(
        torch.zeros(n, config.dim),
        facts["signal_bounds"],
        facts["profile_dim"],
        facts["relations"],
        torch.zeros(n + 1, r, facts["entity_dim"]) if r else None,
        config,
        behavior=load_behavior(folder / "behavior") if facts["behavior"] else None,
    )
    try:
        encoder.load_state_dict(read_tensors(folder / "encoder.safetensors"))
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise EncoderError(f"{folder / 'encoder.safetensors'} does not fit: {reason}") from None
    encoder.report = FitReport.from_facts(facts["report"]) if facts["report"] else None
    return encoder
