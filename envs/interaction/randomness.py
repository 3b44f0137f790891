"""Counter-based randomness: a draw depends on its coordinates and on nothing else.

The hash is the finalizer of splitmix64 (Steele, Lea, Flood 2014), absorbing one coordinate at a time. Difference
from the generator: the counter is a tuple (seed, lane, episode, step, purpose, item), each absorbed with a full
finalizer round, so that neighbouring coordinates give unrelated draws. No global generator is touched.
"""

import math
import zlib
from dataclasses import dataclass

import torch
from torch import Tensor

from recloop.encoders.base.tensor_struct import TensorStruct

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB
_INV_23 = 1.0 / (1 << 23)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical shift to the right of signed 64-bit integers."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _unit(bits: Tensor) -> Tensor:
    """The upper 23 bits as float32 in (0, 1): with one more, the half added could round the largest up to 1."""
    return (_shift(bits, 41).to(torch.float32) + 0.5) * _INV_23


def absorb(key: Tensor, value: Tensor | int) -> Tensor:
    """Mix one coordinate into a key: int64 in, int64 out, shapes broadcast."""
    x = (key ^ value) + _GOLDEN if isinstance(value, Tensor) else (key ^ signed(value)) + _GOLDEN
    x = (x ^ _shift(x, 30)) * _MIX_1
    x = (x ^ _shift(x, 27)) * _MIX_2
    return x ^ _shift(x, 31)


def signed(value: int) -> int:
    """Any integer, wrapped to signed 64 bits."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


def purpose_code(purpose: str) -> int:
    """A number for a purpose, the same in every process."""
    return zlib.crc32(purpose.encode())


# What `torch.compiler.assume_constant_result` sets; the decorator itself would load all of the compiler.
purpose_code._dynamo_marked_constant = True  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Draw(TensorStruct):
    """Draws for a batch of lanes at one step. Pass it around; it holds no state.

    Args:
        key: int64 (B,), the hash of (seed, lane, episode, step).
        shift: float32 (B, K) log-odds by which a yes or no about the K items of a slate is likelier, see `shifted`;
            None for none.
        shifts: the purposes that this is about.

    >>> draw = Draw.at(seed=0, lane=torch.arange(2), episode=torch.zeros(2).long(), step=torch.zeros(2).long())
    >>> bool((draw.uniform("click") == draw.uniform("click")).all())
    True
    """

    key: Tensor
    shift: Tensor | None = None
    shifts: tuple[str, ...] = ()

    @classmethod
    def at(cls, seed: int, lane: Tensor, episode: Tensor, step: Tensor) -> "Draw":
        """Coordinates are int64 (B,) on one device."""
        return cls.of_episode(seed, lane, episode).at_step(step)

    @classmethod
    def of_episode(cls, seed: int, lane: Tensor, episode: Tensor) -> "Draw":
        """What all steps of an episode have in common: worth keeping; `at_step` gives the draws of one."""
        key = absorb(torch.full_like(lane, _GOLDEN), seed)
        return cls(absorb(absorb(key, lane), episode))

    def at_step(self, step: Tensor) -> "Draw":
        """From the draws of an episode, those of a step, int64 (B,)."""
        return Draw(absorb(self.key, step))

    def shifted(self, shift: Tensor, *purposes: str) -> "Draw":
        """The same draws, under which a simulator's yes or no about a slate's items has other odds.

        Who says yes where `uniform(purpose, slate) < p` says it with the log-odds of p plus the shift, and who chooses
        by `gumbel(purpose, slate)` chooses with logits plus the shift, whatever model p comes from. A shift of 0
        changes no bit.

        Args:
            shift: float32 (B, K), one an item of the slates that will be asked about.
            purposes: of the draws it is about; others stay as they are. Shifts on top of each other add up, for the
                purposes of both.
        """
        total = shift if self.shift is None else self.shift + shift
        return Draw(self.key, total, tuple(dict.fromkeys((*self.shifts, *purposes))))

    def held(self) -> dict[str, Tensor]:
        """See `TensorStruct.held`."""
        return {"key": self.key} if self.shift is None else {"key": self.key, "shift": self.shift}

    def bits(self, purpose: str, items: Tensor | None = None) -> Tensor:
        """64 random bits as int64: (B,), or of the shape (B, ...) of `items` (int64), one a lane and item."""
        key = absorb(self.key, purpose_code(purpose))
        if items is None:
            return key
        return absorb(key.reshape(-1, *[1] * (items.dim() - 1)), items)

    def uniform(self, purpose: str, items: Tensor | None = None) -> Tensor:
        """float32 in (0, 1), strictly inside: (B,), or of the shape of `items`, one a lane and item."""
        luck = _unit(self.bits(purpose, items))
        if self.shift is None or purpose not in self.shifts or items is None:
            return luck
        return torch.where(self.shift == 0, luck, torch.sigmoid(torch.logit(luck) - self.shift))

    def gumbel(self, purpose: str, items: Tensor | None = None) -> Tensor:
        """Standard Gumbel noise, shaped as in `uniform`."""
        noise = -torch.log(-torch.log(_unit(self.bits(purpose, items))))
        return noise + self.shift if self.shift is not None and purpose in self.shifts and items is not None else noise

    def normal(self, purpose: str, items: Tensor | None = None) -> Tensor:
        """Standard normal noise by Box and Muller, shaped as in `uniform`."""
        radius = torch.sqrt(-2.0 * torch.log(self.uniform(purpose, items)))
        return radius * torch.cos(2.0 * math.pi * self.uniform(purpose + "/angle", items))
