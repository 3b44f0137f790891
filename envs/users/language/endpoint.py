"""A language model behind an OpenAI-compatible chat endpoint: asked within a budget, every answer kept."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, CancelledError, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from torch import Tensor

from recloop.encoders.base.errors import BudgetError, LanguageModelError
from recloop.envs.users.language.answers import Prompt, as_rows, checked_options, pooled
from recloop.envs.users.language.calls import Answered, ChatCalls, Unanswered
from recloop.envs.users.language.store import AnswerStore, content_key

_EXTRA_TOKENS = 64
"""Upper bound of what a chat format adds to a question."""


@dataclass(frozen=True)
class EndpointConfig:
    """Where to ask, how patiently, and for how much.

    Args:
        base_url: up to and without `/chat/completions`, such as http://localhost:8000/v1.
        model: as the endpoint names it.
        key_variable: environment variable that holds the key; none is sent where it is not set.
        timeout: seconds for one whole call.
        attempts: calls for one question, the first included, before giving up.
        back_off: seconds before the second attempt; doubles with each, with jitter.
        longest_wait: seconds; no wait is longer, also where the endpoint asks for more.
        concurrency: calls at once.
        max_calls: over all runs with one store; None for no limit. Calls refused with 429 or 5xx do not count.
        max_money: likewise, in the currency of the prices.
        price_in, price_out: of a million tokens of question and of answer.
        top_logprobs: how many tokens' probabilities to ask for; most endpoints give at most 20.
        least_mass: an answer of whose probability the options hold no more than this is none.
    """

    base_url: str
    model: str
    key_variable: str = "OPENAI_API_KEY"
    timeout: float = 60.0
    attempts: int = 5
    back_off: float = 1.0
    longest_wait: float = 60.0
    concurrency: int = 8
    max_calls: int | None = None
    max_money: float | None = None
    price_in: float = 0.0
    price_out: float = 0.0
    top_logprobs: int = 20
    least_mass: float = 0.01

    def __post_init__(self) -> None:
        if "@" in self.base_url:
            host = self.base_url.rpartition("@")[2]
            raise LanguageModelError(
                f"the base URL of {host} holds a user or password, which would be written down with the command; leave "
                f"it out, and put the key into the environment variable {self.key_variable}"
            )
        for name in ("timeout", "attempts", "concurrency", "top_logprobs"):
            if not getattr(self, name) > 0:
                raise LanguageModelError(f"{name}={getattr(self, name)} of the endpoint must be above 0")
        for name in ("back_off", "longest_wait", "price_in", "price_out", "least_mass"):
            value = getattr(self, name)
            if not (value >= 0 and math.isfinite(value)):
                raise LanguageModelError(f"{name}={value} of the endpoint must be 0 or more")
        if self.max_money is not None and self.price_in <= 0 and self.price_out <= 0:
            raise LanguageModelError(
                f"a budget of {self.max_money:g} cannot be kept without prices; give price_in and price_out, of a "
                "million tokens"
            )


class Endpoint:
    """An `AnswerModel` over HTTP. Each question asks for one token and the probabilities of the likeliest ones.

    Every answer is in the store before the next one is waited for, so that nothing paid for is lost when a run ends
    early. Before a call its highest possible price is set aside, so that neither budget is ever passed; calls
    that broke off without an answer count at that price. Where what is set aside leaves too little for the next call,
    it waits for what those under way really cost.

    Args:
        config: where and how.
        store: answers by content and what was spent.
    """

    def __init__(self, config: EndpointConfig, store: AnswerStore | None = None) -> None:
        self.config = config
        self.name = config.model
        self.store = AnswerStore() if store is None else store
        self._calls = ChatCalls(
            config.base_url,
            config.key_variable,
            timeout=config.timeout,
            attempts=config.attempts,
            back_off=config.back_off,
            longest_wait=config.longest_wait,
        )
        self._budget = threading.Condition()
        self._reserved_calls, self._reserved_money = 0, 0.0

    def probabilities(self, prompts: Sequence[Prompt], options: Sequence[str]) -> Tensor:
        """See `AnswerModel`.

        Raises:
            BudgetError: what is left of a budget does not pay for the next call.
            LanguageModelError: the endpoint refuses, answers nonsense or does not answer after all attempts.
        """
        checked_options(options)
        keys = {prompt.text: content_key("chat", self.config.base_url, self.name, prompt.text) for prompt in prompts}
        known = {text: self.store.get(key) for text, key in keys.items()}
        missing = [text for text, answer in known.items() if answer is None]
        if missing:
            begin = time.perf_counter()
            try:
                known.update(self._ask(missing, keys))
            finally:
                self.store.took(time.perf_counter() - begin)
        least = self.config.least_mass
        found = {
            text: pooled([(token, math.exp(score)) for token, score in answer], options, least)
            for text, answer in known.items()
        }
        return as_rows([found[prompt.text] for prompt in prompts], len(options))

    def _ask(self, texts: list[str], keys: dict[str, str]) -> dict[str, list[tuple[str, float]]]:
        """Ask all, several at once; the first failure stops what has not begun."""
        stop = threading.Event()
        pool = ThreadPoolExecutor(self.config.concurrency, thread_name_prefix="endpoint")
        jobs: dict[Future[list[tuple[str, float]]], str] = {}
        try:
            jobs = {pool.submit(self._one, text, keys[text], stop): text for text in texts}
            wait(jobs, return_when=FIRST_EXCEPTION)
        finally:  # also on an interruption: calls under way end and are kept, the others never begin
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
        raised = [job.exception() for job in jobs if not job.cancelled()]
        failures = [failure for failure in raised if failure is not None and not isinstance(failure, CancelledError)]
        if failures:
            budget = [failure for failure in failures if isinstance(failure, BudgetError)]
            raise (budget or failures)[0]
        return {text: job.result() for job, text in jobs.items()}

    def _one(self, text: str, key: str, stop: threading.Event) -> list[tuple[str, float]]:
        config = self.config
        most = len(text.encode("utf-8", "surrogatepass")) + _EXTRA_TOKENS  # no tokenizer makes more than one a byte
        highest = (most * config.price_in + config.price_out) / 1e6
        request = {
            "model": config.model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": 1,
            "temperature": 1.0,
            "logprobs": True,
            "top_logprobs": config.top_logprobs,
        }
        for attempt in range(config.attempts):
            self._reserve(highest, stop)
            charge: tuple[int, float] = (0, 0.0)
            answer: dict[str, list[tuple[str, float]]] = {}
            try:
                outcome = self._calls.once(request)
                charge = self._charge(outcome, highest)
                if isinstance(outcome, Answered):
                    answer = {key: outcome.tokens}
                    return outcome.tokens
                lasting = outcome.fatal or attempt + 1 == config.attempts
                if lasting:  # before those who wait for the budget are woken
                    stop.set()
            finally:
                self._settle(highest, answer, charge)
            if lasting:
                raise LanguageModelError(outcome.said(attempt + 1))
            if stop.wait(self._calls.pause(outcome, attempt, key)):
                raise LanguageModelError(outcome.said(attempt + 1))
        raise AssertionError("attempts are at least 1")

    def _charge(self, outcome: Answered | Unanswered, highest: float) -> tuple[int, float]:
        """Calls and money that this outcome cost."""
        if isinstance(outcome, Unanswered) and not outcome.charged:
            return (0, 0.0)
        if outcome.usage is None:
            return (1, highest)
        asked, said = outcome.usage
        return (1, (asked * self.config.price_in + said * self.config.price_out) / 1e6)

    def _reserve(self, money: float, stop: threading.Event) -> None:
        """Set the price of a call aside; `BudgetError` once nothing is under way that could turn out cheaper."""
        with self._budget:
            while not stop.is_set() and (refused := self._refused(money)) is not None:
                if not self._reserved_calls:
                    raise refused
                self._budget.wait()
            if stop.is_set():
                raise CancelledError
            self._reserved_calls += 1
            self._reserved_money += money

    def _refused(self, money: float) -> BudgetError | None:
        """Why the next call does not fit beside those under way, or None."""
        config, spent = self.config, self.store.spent
        kept = f"the {len(self.store)} answers are kept, raise the budget and run again to go on"
        if config.max_calls is not None and spent.calls + self._reserved_calls + 1 > config.max_calls:
            return BudgetError(f"{spent.calls} of {config.max_calls} calls are spent; {kept}")
        if config.max_money is not None and spent.money + self._reserved_money + money > config.max_money:
            return BudgetError(
                f"{spent.money:.4g} of {config.max_money:g} is spent and the next call may cost {money:.2g}; {kept}"
            )
        return None

    def _settle(self, reserved: float, answer: dict[str, list[tuple[str, float]]], charge: tuple[int, float]) -> None:
        """Exchange what was set aside for what it cost."""
        with self._budget:
            self._reserved_calls -= 1
            self._reserved_money -= reserved
            self._budget.notify_all()
            if answer or charge[0]:
                self.store.put(answer, *charge)
