"""Whether one answer is well-formed: shapes, dtypes, devices and values of responses and expectations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from recloop.encoders.base.errors import UserSimulatorError
from recloop.envs.interaction.response import Expected, Response
from recloop.envs.logs.schema import Signal

TOLERANCE = 1e-5
"""How far floats may lie apart between one lane alone and the same lane among many."""


class Notes:
    """Notes every broken promise once."""

    def __init__(self) -> None:
        self.broken: list[str] = []

    def expect(self, held: bool, message: str) -> bool:
        """Note `message` where a promise is not held; says whether it is."""
        if not held and message not in self.broken:
            self.broken.append(message)
        return held

    def called(self, name: str, call: Callable[[], Any]) -> Any:
        """What a method returns; None and a note where it raises anything but a `UserSimulatorError`."""
        try:
            return call()
        except UserSimulatorError:
            raise
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else "no message"
            self.expect(False, f"{name} raises {type(error).__name__}: {reason}; make it answer any slate")
            return None


class AnswerChecks:
    """Looks at single answers to B slates of K places.

    Args:
        notes: where broken promises are noted.
        signals: what the answers carry.
        catalogue_size: N.
        lanes, slate_size: B and K.
        device: what the simulator was prepared for.
    """

    def __init__(
        self,
        notes: Notes,
        signals: Sequence[Signal],
        catalogue_size: int,
        lanes: int,
        slate_size: int,
        device: torch.device,
    ) -> None:
        self.notes, self.signals = notes, tuple(signals)
        self.n, self.lanes, self.k, self.device = catalogue_size, lanes, slate_size, device

    def response(self, response: Response, slate: Tensor) -> bool:
        """Shapes and dtypes first, then values."""
        b, k, s = self.lanes, self.k, len(self.signals)
        wanted = (
            ("signals", response.signals, (b, k, s), torch.float32),
            ("given", response.given, (b, k, s), torch.bool),
            ("left", response.left, (b,), torch.bool),
        )
        sound = True
        for name, tensor, shape, dtype in wanted:
            sound &= self.tensor(f"Response.{name}", tensor, shape, dtype)
        if response.days_away is not None and self.tensor(
            "Response.days_away", response.days_away, (b,), torch.float32
        ):
            self.notes.expect(bool((response.days_away >= 0).all()), "Response.days_away is negative; give days from 0")
        if not sound:
            return False
        values, given = response.signals, response.given
        held = (slate < self.n).unsqueeze(2)  # (B, K, 1)
        expect = self.notes.expect
        expect(not bool((given & ~held).any()), "it answers empty places (slate == N); set given False there")
        expect(not bool((values[~given] != 0).any()), "signals are not 0 where not given; set them to 0 there")
        names = [signal.name for signal in self.signals]
        for i, signal in enumerate(self.signals):
            possible = held.squeeze(2)
            if signal.given_on is not None:
                parent = names.index(signal.given_on)
                possible = possible & given[..., parent] & (values[..., parent] > 0.5)
                self.notes.expect(
                    not bool((given[..., i] & ~possible).any()),
                    f"'{signal.name}' is given where '{signal.given_on}' is not positive; set given False there",
                )
            elif i == 0:
                self.notes.expect(
                    bool((given[..., 0] | ~possible).all()),
                    f"'{signal.name}' is not given at every shown place; consumption is always known",
                )
            self._values(signal, values[..., i][given[..., i]])
        return True

    def _values(self, signal: Signal, values: Tensor) -> None:
        levels = (0.0, 1.0) if signal.kind == "binary" else signal.levels
        if levels:
            wrong = ~torch.isin(values, values.new_tensor(levels))
            limit = f"{list(levels)}"
        else:
            low, high = signal.bounds
            wrong = (values < low) | (values > high)
            limit = f"{low} to {high}"
        if bool(wrong.any()):
            self.notes.expect(
                False, f"'{signal.name}' takes {float(values[wrong][0]):g}; its values are {limit}, keep to them"
            )

    def expected(self, expected: Expected, slate: Tensor) -> None:
        """Means within the range of their signals, probabilities of leaving."""
        shape = (*slate.shape, len(self.signals))
        if self.tensor("Expected.mean", expected.mean, shape, torch.float32):
            held = slate < self.n
            for i, signal in enumerate(self.signals):
                low, high = signal.bounds
                mean = expected.mean[..., i][held]
                self.notes.expect(
                    bool(((mean >= low - TOLERANCE) & (mean <= high + TOLERANCE)).all()),
                    f"Expected.mean of '{signal.name}' lies outside {low} to {high}; give a mean of its values",
                )
        if expected.spread is not None:
            self.tensor("Expected.spread", expected.spread, shape, torch.float32)
        if expected.leave is not None and self.tensor("Expected.leave", expected.leave, (self.lanes,), torch.float32):
            self.notes.expect(
                bool(((expected.leave >= 0) & (expected.leave <= 1)).all()),
                "Expected.leave is no probability; give 0 to 1",
            )

    def leaving(self, expected: Expected, response: Response) -> None:
        """Nobody leaves against certainty."""
        if expected.leave is None or expected.leave.shape != response.left.shape:
            return
        against = torch.where(response.left, expected.leave <= 0, expected.leave >= 1)
        self.notes.expect(
            not bool(against.any()),
            "users leave (or stay) where Expected.leave says that they never do; let both follow one probability",
        )

    def tensor(self, name: str, value: Any, shape: tuple[int, ...], dtype: torch.dtype) -> bool:
        """One tensor: its kind, shape, dtype, device, and no NaN."""
        if not self.notes.expect(
            isinstance(value, Tensor), f"{name} is a {type(value).__name__}; give a tensor of shape {shape}"
        ):
            return False
        sound = self.notes.expect(tuple(value.shape) == shape, f"{name} has shape {tuple(value.shape)}; give {shape}")
        sound &= self.notes.expect(value.dtype == dtype, f"{name} is {value.dtype}; give {dtype}")
        sound &= self.notes.expect(
            value.device.type == self.device.type,
            f"{name} lies on {value.device}, it was prepared for {self.device}; keep to self.device",
        )
        if sound and value.dtype.is_floating_point:
            sound &= self.notes.expect(
                bool(torch.isfinite(value).all()), f"{name} holds NaN or infinite numbers; check the inputs to it"
            )
        return sound
