"""Fit users who read what they felt: one model a signal and one of leaving, calibrated on users they never saw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from recloop.envs.logs.sequences import Ints, Sequences
from recloop.envs.users.fitted import distributions
from recloop.envs.users.fitted.config import FitConfig, FitReport
from recloop.envs.users.fitted.felt.examples import Array, Examples, examples
from recloop.envs.users.fitted.felt.forest import BoostConfig, grown
from recloop.envs.users.fitted.felt.labelled import Labelled, Objective
from recloop.envs.users.fitted.felt.lasting import Lasting
from recloop.envs.users.fitted.felt.network import trained
from recloop.envs.users.fitted.felt.users import ABOVE, DAYS, LEAVE, FeltUsers, Model, NetworkUsers, TreeUsers
from recloop.envs.users.fitted.fitting.calibration import (
    NEGATIVES,
    Scored,
    by_place,
    calibrate,
    calibrate_leaving,
    choose,
)
from recloop.envs.users.fitted.fitting.prepared import Prepared
from recloop.envs.users.fitted.fitting.propensities import effective_sample_size, propensity_weights, random_maker
from recloop.envs.users.fitted.fitting.report import Fit, logged_values, report_on
from recloop.envs.users.fitted.fitting.windows import WindowMaker
from recloop.envs.users.fitted.heads import chosen
from recloop.envs.users.fitted.inputs.experience import Experience
from recloop.envs.users.fitted.inputs.groups import Groups
from recloop.envs.users.fitted.inputs.item_facts import item_facts

_MOST, _MOST_HELD = 240_000, 60_000
"""Places that are learned from, and that are held out for each purpose."""
_AGAINST = 4
"""Items learned from beside each consumption, where nobody knows what was shown."""
_HEARING = 0.003
"""Share of the held-out loss that knowing what was taken above must save."""
_LEAVING = BoostConfig(rounds=150, rate=0.06, leaves=8, patience=15, least=80, shrink=20.0)
_PEOPLE = 30
"""Users from whom on it is learned what tastes people have, and that each keeps one."""
_FORECASTS = 4
"""Tastes drawn of each user whose answers are forecast."""
_SHUFFLED = 20_000
"""Places on which it is measured what each group of inputs is worth."""


FELT: Mapping[str, type[FeltUsers]] = {"trees": TreeUsers, "network": NetworkUsers}
"""Families by name."""


def fit_felt(family: str, told: Prepared, member: int) -> tuple[FeltUsers, FitReport]:
    """Users of one family fitted on `told.users`; see `fit_users`.

    Args:
        member: number in an ensemble, of the seeds.
    """
    training = _FeltTraining(family, told, member)
    training.grow()
    training.calibrate()
    fit = training.measured()
    report = report_on(training.users, fit)
    worth = training.worth()
    learned = (*report.learned, *training.unlearned(), *training.persons(), *_sentence(family, worth))
    report = replace(report, inputs=worth, learned=learned)
    training.users.parts().requires_grad_(False)
    return training.users, report


class _FeltTraining:
    """One fit: the rows, the forests, and what they are held against."""

    def __init__(self, family: str, told: Prepared, member: int) -> None:
        config, sequences = told.config, told.sequences
        self.told, self.seed = told, config.seed + 101 * member
        groups = Groups(told.sizes.catalogue_size, told.sizes.groups)
        if told.sizes.exposures:
            groups.fill(told.groups)
        facts = item_facts(told.vectors, sequences, told.users, told.signals, config.base_rate)
        memory = Experience(told.signals, told.sizes, groups, facts)
        self.users = FELT[family](told.signals, told.sizes, told.leaving, memory=memory)
        weight = propensity_weights(sequences) if config.propensity == "clipped" else None
        self.maker = WindowMaker(sequences, config.history, config.lead, config.window, True, weight)
        self.columns = self.users.read_items(told.vectors)
        people = np.unique(told.users)
        if told.sizes.exposures and len(people) >= _PEOPLE:
            Lasting(memory, sequences, people, self.columns).learn_prior()
            memory.persons = True
        self.rows = self._examples(told.users, _MOST, True, _AGAINST)
        self.tune = self._examples(told.tune, _MOST_HELD, False, NEGATIVES)
        draws = _FORECASTS if memory.persons else 1
        self.test = [self._examples(told.test, _MOST_HELD // draws, False, NEGATIVES, n) for n in range(draws)]
        self.choice: tuple[float, float] | None = None

    def grow(self) -> None:
        """All forests."""
        self._grow_consumption()
        signals = self.told.signals
        for s, signal in enumerate(signals[1:], start=1):
            rows, held = (self._answers(part, s) for part in (self.rows, self.tune))
            objective: Objective = "binary" if signal.kind == "binary" else "regression"
            self.users.models[signal.name] = self._model(rows, held, objective, self.seed + s)
            logged = logged_values(self.told.sequences, self.told.users, s)
            self.users.heads.shapes[s].data.copy_(distributions.base_shape(signal, logged)[1])
        if self.told.leaves:
            rows, held = (_ends(part, self._appeal(part)) for part in (self.rows, self.tune))
            self.users.models[LEAVE] = self._model(rows, held, "binary", self.seed + 50, _LEAVING)
        if self.told.sizes.days:
            rows, held = (_absences(part, self._appeal(part)) for part in (self.rows, self.tune))
            self.users.models[DAYS] = self._model(rows, held, "regression", self.seed + 51, _LEAVING)
            left = held if len(held.values) else rows
            error = left.values - self.users.models[DAYS].of(left.inputs)
            spread = max(float(np.sqrt(np.mean(error**2))) if len(error) else 0.5, 0.05)
            self.users.heads.gap_spread.data.fill_(float(np.log(np.expm1(spread))))

    def calibrate(self) -> None:
        """On the tune users, as neural users are."""
        exposure = self.told.exposure
        calibrate(self.users, self._scored(self.tune), exposure)
        if exposure is None:
            raw = torch.from_numpy(raw_scores(self.users, self.tune)[..., 0])
            values = torch.from_numpy(self.tune.signals[..., 0])
            heard = raw * self.users.heads.scale[0] + self.users.heads.shift[0]
            self.choice = choose(self.users, (raw, heard, values, torch.from_numpy(self.tune.held)))
        if self.told.leaves:
            calibrate_leaving(self.users, self._scored(self.tune))

    def measured(self) -> Fit:
        """What the report is made of, from the test users."""
        told = self.told
        forest = self.users.models[told.signals[0].name]
        return Fit(
            config=told.config,
            sequences=told.sequences,
            users=told.users,
            held_out=told.held_out,
            exposure=told.exposure,
            popularity=told.popularity,
            test=self._forecast(),
            epochs=forest.size,
            repeat_rate=told.repeat_rate,
            choice=self.choice,
            sample=effective_sample_size(self.maker.weight) if self.maker.weight is not None else None,
        )

    def unlearned(self) -> tuple[str, ...]:
        """What too few answers were logged of, for the card."""
        names = [name for name, forest in self.users.models.items() if not forest.learned]
        return tuple(
            f"{self.users.kind} users, {name}: too few answers to learn from; all get the base rate." for name in names
        )

    def persons(self) -> tuple[str, ...]:
        """That users keep a taste, for the card."""
        if not self.users.memory.persons:
            return ()
        told = "each keeps one taste through an episode, drawn from what is known of the user when it begins"
        return (f"{self.users.kind} users: {told}; figures are of forecasts, means over {_FORECASTS} such draws.",)

    def worth(self) -> dict[str, float]:
        """What consumption, and leaving, lose in nats an answer where one group of inputs is shuffled among the test
        answers (permutation importance, Breiman 2001); largest first, leaving's marked so."""
        heads, rng = self.users.heads, np.random.default_rng(self.seed)
        rows = self._consumptions(self.test[0], self.users.hears)
        few = rng.permutation(len(rows.values))[:_SHUFFLED]
        rows = Labelled(rows.inputs[few], rows.values[few], None if rows.weights is None else rows.weights[few])
        widths = {name: w for name, w in self.test[0].widths[0].items() if self.users.hears or name != ABOVE}
        forest = self.users.models[self.told.signals[0].name]
        scale, shift = float(heads.scale[0]), float(heads.shift[0])
        found = _worth(forest, rows, widths, scale, shift, rng)
        if self.told.leaves:
            ends = _ends(self.test[0], self._appeal(self.test[0]))
            scale, shift = float(heads.leave_scale), float(heads.leave_shift)
            more = _worth(self.users.models[LEAVE], ends, self.test[0].widths[1], scale, shift, rng)
            found |= {f"{LEAVE}: {name}": value for name, value in more.items()}
        return found

    def _examples(self, rows: Ints, most: int, shifted: bool, negatives: int, forecast: int | None = None) -> Examples:
        told, generator = self.told, torch.Generator().manual_seed(self.seed + 7)
        of = (self.users, self.columns, told.profile, self.maker, rows, most, generator, shifted)
        return examples(*of, told.exposure, negatives, forecast)

    def _model(
        self, rows: Labelled, held: Labelled, objective: Objective, seed: int, config: BoostConfig | None = None
    ) -> Model:
        """Of the family's kind; `config` is for trees."""
        if isinstance(self.users, NetworkUsers):
            return trained(rows, held, objective, seed)
        return grown(rows, held, objective, config or BoostConfig(), seed)

    def _grow_consumption(self) -> None:
        """With what was taken above where that is worth it; slates of one place have nothing above."""
        name = self.told.signals[0].name
        rows, held = (self._consumptions(part, False) for part in (self.rows, self.tune))
        forest = self._model(rows, held, "binary", self.seed)
        self.users.models[name], self.users.hears = forest, False
        if self.told.exposure is not None or self.rows.items.shape[1] == 1 or not forest.learned:
            return
        loss = _loss(forest.of(held.inputs), held)
        rows, held = (self._consumptions(part, True) for part in (self.rows, self.tune))
        hearing = self._model(rows, held, "binary", self.seed)
        if _loss(hearing.of(held.inputs), held) < loss * (1 - _HEARING):
            self.users.models[name], self.users.hears = hearing, True

    def _consumptions(self, part: Examples, hears: bool) -> Labelled:
        """Consumption at every shown place, or beside what was assumed shown, weighted to the assumed base rate; with
        what was taken above, or without."""
        width = part.inputs.shape[2] - (0 if hears else part.widths[0][ABOVE])
        if self.told.exposure is None:
            held = part.held
            return Labelled(part.inputs[held][:, :width], part.signals[..., 0][held], part.weight[held])
        rate = self.told.exposure.base_rate
        positive, negative = part.inputs[:, 0], part.against[part.against_held]
        values = np.concatenate([np.ones(len(positive)), np.zeros(len(negative))]).astype(np.float32)
        weights = np.where(values > 0.5, rate / max(len(positive), 1), (1 - rate) / max(len(negative), 1))
        return Labelled(
            np.concatenate([positive, negative])[:, :width], values, (weights * len(values)).astype(np.float32)
        )

    def _answers(self, part: Examples, s: int) -> Labelled:
        """A further signal where it was given; numbers scaled to [0, 1]."""
        where = part.given[..., s]
        values = torch.from_numpy(part.signals[..., s][where])
        if self.told.signals[s].kind != "binary":
            values = distributions.unit_scale(self.told.signals[s], values)
        width = part.widths[0][ABOVE]
        return Labelled(part.inputs[where][:, :-width], values.numpy().astype(np.float32), part.weight[where])

    def _appeal(self, part: Examples) -> Array:
        """Calibrated probability of consumption at every place, (Q, K); 0 at empty ones."""
        heads = self.users.heads
        scores = torch.from_numpy(raw_scores(self.users, part)[..., 0]) * heads.scale[0] + heads.shift[0]
        held = torch.from_numpy(part.held)
        chance = chosen(scores, held) if bool(heads.one_at_most) else torch.sigmoid(scores) * held
        found: Array = chance.numpy()
        return found

    def _forecast(self) -> Scored:
        """Test answers as they were to be expected: chances are means over the tastes that users might have had."""
        found = [self._scored(part) for part in self.test]
        if len(found) == 1:
            return found[0]
        heads = self.users.heads
        binary = [signal.kind == "binary" for signal in self.told.signals]
        scores = []
        for s, drawn in enumerate(zip(*(one.scores for one in found), strict=True)):
            raw = torch.stack(drawn)
            if binary[s]:
                chance = torch.sigmoid(raw * heads.scale[s] + heads.shift[s]).mean(0)
                scores.append((torch.logit(chance, 1e-7) - heads.shift[s]) / heads.scale[s].clamp_min(1e-6))
            else:
                scores.append(raw.mean(0))
        leave = torch.stack([one.leave for one in found]).mean(0)
        return replace(found[0], scores=tuple(scores), leave=leave)

    def _scored(self, part: Examples) -> Scored:
        """Raw scores beside what happened."""
        told, users = self.told, self.users
        raw, items = torch.from_numpy(raw_scores(self.users, part)), torch.from_numpy(part.items)
        if bool(users.heads.one_at_most):
            raw = by_place(users, raw, items)
        given, signals = torch.from_numpy(part.given), torch.from_numpy(part.signals)
        where = [given[..., s] for s in range(len(told.signals))]
        none = torch.zeros(0, 0)
        against = none
        if told.exposure is not None:
            q, c, width = part.against.shape[0], part.against.shape[1], part.widths[0][ABOVE]
            flat = part.against[..., :-width].reshape(q * c, -1)
            against = torch.from_numpy(users.models[told.signals[0].name].of(flat).astype(np.float32)).view(q, c)
        ends = Labelled(part.ended[:0], part.left[:0].astype(np.float32))
        leave = none.flatten()
        if told.leaves:
            ends = _ends(part, self._appeal(part))
            leave = torch.from_numpy(users.models[LEAVE].of(ends.inputs).astype(np.float32))
        return Scored(
            scores=tuple(raw[..., s][w] for s, w in enumerate(where)),
            values=tuple(signals[..., s][w] for s, w in enumerate(where)),
            items=tuple(items[w] for w in where),
            against=against,
            against_items=torch.from_numpy(part.against_items) if told.exposure is not None else none.long(),
            against_held=torch.from_numpy(part.against_held) if told.exposure is not None else none.bool(),
            leave=leave,
            left=torch.from_numpy(ends.values),
        )


def raw_scores(users: FeltUsers, part: Examples) -> Array:
    """Raw scores of all signals at all places, (Q, K, S)."""
    q, k, width = *part.items.shape, part.widths[0][ABOVE]
    found = []
    for s, signal in enumerate(users.signals):
        inputs = part.inputs if s == 0 and users.hears else part.inputs[..., :-width]
        found.append(users.models[signal.name].of(inputs.reshape(q * k, -1)).reshape(q, k))
    return np.stack(found, axis=-1).astype(np.float32)


def random_felt_likelihood(
    users: FeltUsers, sequences: Sequences, rows: Ints, item_vectors: Tensor, profile: Tensor, config: FitConfig
) -> float:
    """As `random_likelihood`, of users who read what they felt."""
    maker, generator = random_maker(sequences, config, True), torch.Generator().manual_seed(config.seed)
    columns = users.read_items(item_vectors)
    part = examples(users, columns, profile, maker, rows, _MOST_HELD, generator, False, None, 0, 0)
    scores = users.heads.calibrated(torch.from_numpy(raw_scores(users, part)))
    signals, weight = torch.from_numpy(part.signals), torch.from_numpy(part.weight)
    found = []
    for s in range(len(users.signals)):
        where = torch.from_numpy(part.given[..., s])
        likelihood = users.heads.log_likelihood(s, scores[..., s][where], signals[..., s][where])
        found.append(float((likelihood * weight[where]).sum() / weight[where].sum().clamp_min(1e-9)))
    return float(np.mean(found))


def _with_appeal(part: Examples, appeal: Array) -> Array:
    """What leaving reads (Q, E), the slates' mean and highest appeal filled in."""
    found, s = part.ended.copy(), part.signals.shape[2]
    found[:, s + 1] = appeal.sum(1) / np.maximum(part.held.sum(1), 1)
    found[:, s + 2] = appeal.max(1)
    return found


def _ends(part: Examples, appeal: Array) -> Labelled:
    """Slates after which somebody knows whether the user left."""
    known = part.left >= 0
    return Labelled(_with_appeal(part, appeal)[known], part.left[known].astype(np.float32))


def _absences(part: Examples, appeal: Array) -> Labelled:
    """Logarithms of one more than the days away, of those who came back."""
    known = np.isfinite(part.days)
    return Labelled(_with_appeal(part, appeal)[known], np.log1p(part.days[known]).astype(np.float32))


def _loss(raw: np.ndarray, rows: Labelled) -> float:
    """Mean loss of logits (n,)."""
    each = np.logaddexp(0, raw) - raw * rows.values
    return float(np.average(each, weights=rows.weights))


def _worth(
    forest: Model, rows: Labelled, widths: Mapping[str, int], scale: float, shift: float, rng: np.random.Generator
) -> dict[str, float]:
    """Loss with each group of inputs shuffled, less the loss as it is; largest first."""
    if not forest.learned or not len(rows.values):
        return {}
    base, found, begin = _loss(forest.of(rows.inputs) * scale + shift, rows), {}, 0
    for name, width in widths.items():
        shuffled = rows.inputs.copy()
        order = rng.permutation(len(shuffled))
        shuffled[:, begin : begin + width] = shuffled[order, begin : begin + width]
        found[name] = round(_loss(forest.of(shuffled) * scale + shift, rows) - base, 5)
        begin += width
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def _sentence(family: str, worth: Mapping[str, float]) -> tuple[str, ...]:
    """The inputs that mattered most, for the card; nothing where none was measured."""
    told = []
    for what, leaves in (("consumption", False), ("leaving", True)):
        mine = {k.removeprefix(f"{LEAVE}: "): v for k, v in worth.items() if k.startswith(f"{LEAVE}: ") == leaves}
        best = [f"{name} {value:.4f}" for name, value in list(mine.items())[:5] if value > 0]
        told += [f"{what}: {', '.join(best)}"] if best else []
    if not told:
        return ()
    return (f"{family} users, inputs by what is lost in nats an answer where they are shuffled; {'; '.join(told)}.",)
