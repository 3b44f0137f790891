"""Fast users fitted to a language model's answers, in a world that keeps its own users beside them.

    recloop distill worlds/ml-100k --model ../models/Qwen3-0.6B --budget 20000 --out worlds/ml-100k-qwen
    recloop distill worlds/ml-100k --model gpt-4o-mini --endpoint https://api.openai.com/v1 --budget 20000 \
        --money 5 --price-in 0.15 --price-out 0.60 --out worlds/ml-100k-gpt

The model plays users of the world: it is shown slates that several policies draw, and answers by the probabilities of
its answer tokens. Users of a fitted family learn from the answers; how faithful they are is measured on users they
never saw, and by whether a few policies rank alike in both. Every answer is kept in OUT.answers.sqlite before the next
is asked for: a run that was killed, or whose budget ended, goes on where it stopped when it is started again.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro

from recloop.agents.policy import FitOptions
from recloop.agents.registry import make_policy
from recloop.encoders.base.errors import BudgetError, RecloopError
from recloop.encoders.base.progress import progress_bar
from recloop.envs.logs.sequences import Ints
from recloop.envs.simulation.core import Core, checked_device
from recloop.envs.simulation.rollout import Picked, steps
from recloop.envs.users.contract import UserSimulator
from recloop.envs.users.fitted import FitConfig
from recloop.envs.users.language import (
    AnswerModel,
    AnswerStore,
    Endpoint,
    EndpointConfig,
    LanguageModelUsers,
    LocalConfig,
    LocalModel,
    PromptWords,
)
from recloop.envs.users.language.asking import FEWEST_USERS, Asked, ask_users
from recloop.envs.users.language.distillation import (
    DISTILLED,
    Fidelity,
    fidelity_to_model,
    fit_to_answers,
    with_distilled,
)
from recloop.envs.world.world import World
from recloop.experiments.comparison.evaluate import Evaluator
from recloop.experiments.comparison.intervals import Interval
from recloop.experiments.comparison.ranking import tau_over_users
from recloop.experiments.output import replacing_output
from recloop.experiments.provenance import use_threads
from recloop.experiments.report.tables import wide_console
from recloop.experiments.settings import at_least

_FAST_LANES, _FAST_STEPS, _WARM_UP = 512, 20, 3
"""Lanes and slates over which the distilled users are timed, and slates before the clock starts."""


@dataclass(frozen=True)
class DistillConfig:
    """Ask a language model about slates within a budget, and fit fast users to its answers."""

    world: tyro.conf.Positional[Path]
    """World folder."""
    model: str
    """A causal model's folder or hub name; with --endpoint, the model as the endpoint names it."""
    out: Path
    """World folder to write."""
    overwrite: bool = False
    """Replace a world that was made with other settings."""
    budget: int = 20_000
    """Questions the model answers, at most; each is one call of an endpoint."""
    endpoint: str | None = None
    """Base URL of an OpenAI-compatible endpoint; default a model on this machine."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable with the endpoint's key."""
    money: float | None = None
    """Budget of money, in the currency of the prices."""
    price_in: float = 0.0
    """Price of a million tokens asked."""
    price_out: float = 0.0
    """Price of a million tokens answered."""
    timeout: float = 60.0
    """Seconds of one call."""
    concurrency: int = 8
    """Calls at once."""
    slates: int = 6
    """Slates a user is asked about."""
    compare_share: float = 0.3
    """Share of the budget that is kept for ranking policies in the language model."""
    policies: tuple[str, ...] = ("random", "popularity", "worst-first", "content", "last-item")
    """Policies ranked in both; none skips it."""
    family: Literal["recurrent", "attentive", "factor"] = "recurrent"
    """Of the fitted users."""
    ask_leaving: bool = False
    """Ask the model whether the user stops; default a stated rule."""
    most_items: int = 15
    """Newest items of the history that the model is told."""
    batch: int = 32
    """Questions a model on this machine reads at once."""
    seed: int = 0
    """Of users, slates, luck and the fit."""
    fit: FitConfig = FitConfig()  # noqa: RUF009 - frozen
    """How the users are fitted."""
    device: str = "cpu"
    """Torch device of a model on this machine and of the fit."""
    threads: int | None = None
    """Torch threads; default OMP_NUM_THREADS, else all cores."""
    progress: bool = True
    """Show progress bars."""

    def __post_init__(self) -> None:
        at_least(1, slates=self.slates, threads=self.threads, batch=self.batch, budget=self.budget)
        if not 0 <= self.compare_share < 1:
            raise RecloopError(f"--compare-share {self.compare_share} must lie in [0, 1)")

    @property
    def decisive(self) -> dict[str, Any]:
        """The settings that decide what world it is, but for the world it comes from."""
        beside = (
            "world",
            "out",
            "overwrite",
            "endpoint",
            "key_variable",
            "money",
            "price_in",
            "price_out",
            "timeout",
            "concurrency",
            "batch",
            "threads",
            "progress",
        )
        return {name: value for name, value in asdict(self).items() if name not in beside}


@dataclass(frozen=True)
class Distilled:
    """What a distillation gave.

    Args:
        world: with the distilled users.
        fidelity: to the language model.
        before, after: user-steps a second of the language model and of the distilled users.
        tau: Kendall's tau between the two orders of policies, or None where none was taken.
        asked: users and slates the model was asked about.
    """

    world: World
    fidelity: Fidelity
    before: float
    after: float
    tau: Interval | None
    asked: Asked


def main(config: DistillConfig) -> Distilled:
    """Ask, fit, hold the two against each other, save, and print what came out."""
    use_threads(config.threads)
    checked_device(config.device)
    world = World.load(config.world)
    made_with = {**config.decisive, "world": world.fingerprint}
    with replacing_output(config.out, "world.json", "world", made_with, config.overwrite) as settings:
        return _distill(world, config, settings)


def _distill(world: World, config: DistillConfig, made_with: Mapping[str, Any]) -> Distilled:
    store = AnswerStore(config.out.with_name(config.out.name + ".answers.sqlite"))
    made = distill(world, answer_model(config, store), store, config)
    made.world.save(config.out, made_with)
    console = wide_console()
    for line in _report(made, store, config):
        console.print(line, soft_wrap=True)
    store.close()
    return made


def answer_model(config: DistillConfig, store: AnswerStore) -> AnswerModel:
    """Who is asked."""
    if config.endpoint is None:
        local = LocalConfig(batch=config.batch, device=config.device, max_calls=config.budget)
        return LocalModel(config.model, local, store)
    settings = EndpointConfig(
        base_url=config.endpoint,
        model=config.model,
        key_variable=config.key_variable,
        timeout=config.timeout,
        concurrency=config.concurrency,
        max_calls=config.budget,
        max_money=config.money,
        price_in=config.price_in,
        price_out=config.price_out,
    )
    return Endpoint(settings, store)


def distill(world: World, model: AnswerModel, store: AnswerStore, config: DistillConfig) -> Distilled:
    """Fast users fitted to a language model's answers.

    Raises:
        BudgetError: the budget does not reach for enough users; what was answered is in the store.
    """
    leaving: dict[str, Any] = {"leaving": None} if config.ask_leaving else {}
    language = LanguageModelUsers(world.signals, model, words=PromptWords(most_items=config.most_items), **leaving)
    users, lanes = planned(world, language, config)
    with progress_bar(total=len(users), desc="the model answers", disable=not config.progress, unit="user") as bar:
        asked = ask_users(world, language, users, slates=config.slates, seed=config.seed, done=bar.update)
    fast, report, held_out = fit_to_answers(
        world,
        asked,
        language,
        family=config.family,
        config=replace(config.fit, seed=config.seed),
        device=config.device,
        progress=config.progress,
    )
    fidelity = fidelity_to_model(world, language, fast, asked, held_out)
    tau, steps, why = _agreement(world, language, fast, held_out, lanes, config)
    spent = store.spent
    before = (asked.slates + steps) / max(spent.seconds, 1e-9)
    after = speed(world, fast, config.device)
    said = [
        f"{DISTILLED}: {report.family} users fitted to answers of {model.name} about {asked.slates} slates to "
        f"{len(asked.users)} users; figures on {fidelity.users} others of them.",
    ]
    if asked.stopped is not None:
        said.append(f"{DISTILLED}: the budget ended early ({asked.stopped}).")
    if language.unanswered:
        said.append(
            f"{DISTILLED}: {language.unanswered} of {language.asked} questions got none of the answers asked for; they "
            "count as undecided."
        )
    said.append(f"{DISTILLED}: {why}" if tau is None else f"{DISTILLED}: {_order(tau, config, lanes)}.")
    figures = {"user_steps_a_second_model": before, "user_steps_a_second": after, "calls": spent.calls}
    figures |= {"money": spent.money, **({} if tau is None else {"tau": tau.mean})}
    grown = with_distilled(world, fast, report, fidelity, said, figures)
    return Distilled(grown, fidelity, before, after, tau, asked)


def planned(world: World, language: LanguageModelUsers, config: DistillConfig) -> tuple[Ints, int]:
    """Whom to ask, of the train users in a seeded order, and the lanes of the comparison, all within the budget.

    Raises:
        BudgetError: for too few users.
    """
    episode = config.slates * language.most_questions(world.slate_size)
    share = config.compare_share if config.policies else 0.0
    lanes = int(config.budget * share) // (episode * max(len(config.policies), 1))
    most = int(config.budget * (1 - share)) // episode
    if most < FEWEST_USERS:
        need = -(-FEWEST_USERS * episode // (1 - share))
        raise BudgetError(
            f"--budget {config.budget} asks {most} users about {config.slates} slates; at least {FEWEST_USERS} are "
            f"needed, give {need:.0f} or fewer --slates"
        )
    rows = world.users.rows("train").numpy()
    return np.random.default_rng(config.seed).permutation(rows)[:most], lanes


def speed(world: World, users: UserSimulator, device: str = "cpu") -> float:
    """User-steps a second in the core, after a warm-up."""
    core = Core(world, users, batch=_FAST_LANES, users="all", device=device)
    generator = torch.Generator().manual_seed(0)
    n, k = len(world.catalogue), core.slate_size
    slates = [
        torch.rand(_FAST_LANES, n, generator=generator).topk(k, dim=1).indices for _ in range(_WARM_UP + _FAST_STEPS)
    ]
    given = iter(slates)
    stream = steps(core, lambda core, carry: Picked(next(given)))
    begin = time.perf_counter()
    for step in range(len(slates)):
        if step == _WARM_UP:
            _wait(core.device)
            begin = time.perf_counter()
        next(stream)
    _wait(core.device)
    return _FAST_LANES * _FAST_STEPS / (time.perf_counter() - begin)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _agreement(
    world: World, language: LanguageModelUsers, fast: UserSimulator, users: Ints, lanes: int, config: DistillConfig
) -> tuple[Interval | None, int, str]:
    """Kendall's tau between the order of policies in the two, the slates the model was shown for it, or why not."""
    if len(config.policies) < 2:
        return None, 0, "the order of policies was not compared (fewer than two)."
    if lanes < 2:
        return None, 0, "the order of policies was not compared (the budget leaves fewer than two lanes for it)."
    short = replace(world, max_steps=config.slates)
    chosen = [make_policy(name, world, FitOptions(seed=config.seed)) for name in config.policies]
    values = []
    for simulator in (language, fast):
        arena = Evaluator(short, simulator, episodes=lanes, users=users.tolist(), seed=config.seed + 1)
        try:
            values.append(np.stack([arena.run(policy).value for policy in chosen]))
        except BudgetError as error:
            return None, 0, f"the order of policies was not compared ({error})."
    return tau_over_users(values[0], values[1], config.seed), lanes * config.slates * len(chosen), ""


def _order(tau: Interval, config: DistillConfig, lanes: int) -> str:
    return (
        f"Kendall's tau of {len(config.policies)} policies between it and the language model is {tau.mean:.2f} "
        f"({tau.low:.2f} to {tau.high:.2f} over users, {lanes} lanes of {config.slates} slates)"
    )


def _report(made: Distilled, store: AnswerStore, config: DistillConfig) -> list[str]:
    spent = store.spent
    money = f", {spent.money:.4g} of money" if spent.money else ""
    size = f"{len(made.world.catalogue):,} items, slates of {made.world.slate_size}"
    return [
        f"{config.model} answered {spent.calls:,} questions{money}; kept in {store.path}",
        *[line for line in made.world.card.learned if line.startswith(f"{DISTILLED}: ")],
        f"user-steps a second on {config.device} ({size}): {made.before:.1f} by the language model, "
        f"{made.after:,.0f} distilled ({_FAST_LANES} lanes), {made.after / max(made.before, 1e-9):,.0f} times as many",
        f"saved in {config.out}; next: recloop users --world {config.out}",
    ]


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(DistillConfig, main)
