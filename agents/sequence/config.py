"""What a sequence model is made of, and the combinations that have a name."""

from dataclasses import dataclass
from typing import Literal

from recloop.encoders.base.errors import PolicyError

Backbone = Literal["sasrec", "ligr", "hstu", "bert4rec", "gru", "lstm", "mean"]
Loss = Literal["softmax", "sampled", "bce", "gbce"]
ItemSource = Literal["ids", "text", "knowledge", "world"]


@dataclass(frozen=True)
class SequenceConfig:
    """Parts and sizes of a sequence model, and how it is trained; any backbone goes with any loss and items.

    Args:
        backbone: what reads the sequence: `sasrec` (self-attention), `ligr` (gated pre-norm blocks, eSASRec's), `hstu`
            (pointwise attention), `bert4rec` (both directions, masked items), `gru`, `lstm`, or `mean` (a fading mean
            and one linear map: with `items=text` and `dim` as wide as the language model, for other worlds).
        loss: `softmax` over the whole catalogue; `sampled` softmax over negatives that a batch shares, corrected for
            how often each is drawn; `bce` with one negative a place; `gbce`, calibrated for many shared negatives.
        items: what an item is, added up: `ids` (a learned vector each), `text` (the language model's vector of what the
            catalogue says), `knowledge` (the knowledge graph's), `world` (the world's fused item vectors). All but
            `ids` also serve items that nobody consumed.
        length: how many of a user's newest items it reads.
        dim: d, length of an item's embedding.
        blocks: layers of the backbone.
        heads: attention heads; divides `dim`.
        dropout: share of activations dropped in training, in [0, 1).
        negatives: of `sampled` and `gbce`, drawn a batch.
        calibration: t of gBCE in [0, 1]: 0 is plain cross-entropy, 1 gives calibrated probabilities.
        masked: share of a sequence that `bert4rec` masks in training, in (0, 1).
        teacher: a policy that scores items, to learn from too: a name, trained first with its defaults, or a policy
            folder. A slow one, such as a language model, becomes one that acts at the loop's speed.
        teaching: weight of the divergence from the teacher, against one of the log.
        lessons: histories a user that the teacher is asked about.
        epochs: passes over the train users; the learning rate falls to zero over them.
        patience: passes without a better held-out figure before training stops.
        stop_by: the held-out figure: `loss`, cross-entropy over the catalogue, or `ndcg`, for losses whose scores are
            no log-probabilities.
        batch_items: items a gradient step, about.
        learning_rate: of AdamW at its highest.
        weight_decay: of AdamW, on the weights of the backbone alone.
        held_out: share of the train users whose last item is held out to stop by.
        precision: of the scores of `softmax` in training: `bfloat16` where the processor has it (`auto`), or as told.
        seconds: stop after this time; None for no limit. A run cut by time is not repeatable to the bit.
    """

    backbone: Backbone = "sasrec"
    loss: Loss = "softmax"
    items: tuple[ItemSource, ...] = ("ids",)
    length: int = 50
    dim: int = 64
    blocks: int = 2
    heads: int = 2
    dropout: float = 0.2
    negatives: int = 256
    calibration: float = 0.75
    masked: float = 0.2
    teacher: str | None = None
    teaching: float = 1.0
    lessons: int = 4
    epochs: int = 20
    patience: int = 4
    stop_by: Literal["loss", "ndcg"] = "loss"
    batch_items: int = 2048
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    held_out: float = 0.2
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    seconds: float | None = None

    def __post_init__(self) -> None:
        for name in ("length", "dim", "blocks", "heads", "negatives", "lessons", "epochs", "patience", "batch_items"):
            if getattr(self, name) < 1:
                raise PolicyError(f"{name}={getattr(self, name)} of a sequence model must be at least 1")
        if self.dim % self.heads:
            raise PolicyError(f"dim={self.dim} of a sequence model is no multiple of heads={self.heads}")
        if not 0 <= self.dropout < 1:
            raise PolicyError(f"dropout={self.dropout} of a sequence model must lie in [0, 1)")
        if not 0 <= self.held_out <= 1:
            raise PolicyError(f"held_out={self.held_out} of a sequence model must lie in [0, 1]")
        if not 0 <= self.calibration <= 1:
            raise PolicyError(f"calibration={self.calibration} of a sequence model must lie in [0, 1]")
        if not 0 < self.masked < 1:
            raise PolicyError(f"masked={self.masked} of a sequence model must lie in (0, 1)")
        if not self.items:
            raise PolicyError("items of a sequence model name nothing; ids, text, knowledge and world can be added up")

    @property
    def causal(self) -> bool:
        """Whether each place reads the places before it alone."""
        return self.backbone != "bert4rec"


@dataclass(frozen=True)
class GRU4RecConfig(SequenceConfig):
    """GRU4Rec: a GRU, trained by the whole softmax."""

    backbone: Backbone = "gru"
    blocks: int = 1


@dataclass(frozen=True)
class GSASRecConfig(SequenceConfig):
    """gSASRec: self-attention, trained by calibrated binary cross-entropy with many negatives."""

    loss: Loss = "gbce"
    stop_by: Literal["loss", "ndcg"] = "ndcg"


@dataclass(frozen=True)
class ESASRecConfig(SequenceConfig):
    """eSASRec: LiGR's gated pre-norm blocks, trained by sampled softmax."""

    backbone: Backbone = "ligr"
    loss: Loss = "sampled"


@dataclass(frozen=True)
class BERT4RecConfig(SequenceConfig):
    """BERT4Rec: attention in both directions, trained to name masked items; it needs more passes than the others."""

    backbone: Backbone = "bert4rec"
    epochs: int = 60
    patience: int = 10


@dataclass(frozen=True)
class HSTUConfig(SequenceConfig):
    """HSTU: pointwise attention and gates, trained by sampled softmax."""

    backbone: Backbone = "hstu"
    loss: Loss = "sampled"
