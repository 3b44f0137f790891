"""An endpoint with failures injected: retries, time-outs, budgets, nonsense; nothing paid for is ever lost."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from recloop.encoders.base.errors import BudgetError, LanguageModelError
from recloop.envs.users.language import AnswerStore, Endpoint, EndpointConfig, Prompt

YES_NO = ("no", "yes")
PROMPTS = [Prompt("Shown now: a shoe. ", "Would you click on number " + "1" * i) for i in range(6)]


def config(server: Any, **changes: Any) -> EndpointConfig:
    quick = {"back_off": 0.01, "longest_wait": 0.05, "timeout": 5, "key_variable": "NO_KEY"}
    return EndpointConfig(server.url, "tiny-chat", **{**quick, **changes})


def test_probabilities_are_those_of_the_answer_tokens(server: Any) -> None:
    endpoint = Endpoint(config(server, price_in=10.0, price_out=20.0))
    found = endpoint.probabilities([*PROMPTS, *PROMPTS], YES_NO)
    assert found[:, 1].tolist() == pytest.approx([server.chance(p.text) for p in [*PROMPTS, *PROMPTS]], abs=1e-6)
    assert len(server.questions) == 6, "equal questions are asked once"
    assert endpoint.store.spent.calls == 6
    assert endpoint.store.spent.money == pytest.approx(6 * (100 * 10 + 20) / 1e6)
    ratings = endpoint.probabilities(PROMPTS, ("1", "2", "3", "4", "5"))
    assert ratings[0].tolist() == pytest.approx([0, 0, 0.6, 0.4, 0])
    assert len(server.questions) == 6, "the likeliest tokens are kept, so other options cost nothing"


def test_the_key_travels_in_the_header_and_never_in_a_message(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINY_KEY", "sk-very-secret")
    Endpoint(config(server, key_variable="TINY_KEY")).probabilities(PROMPTS[:1], YES_NO)
    assert server.keys == ["Bearer sk-very-secret"]
    server.fail = lambda number: 401
    with pytest.raises(LanguageModelError, match=r"answers 401 \(no, Bearer \[key\]\); set the key in .* TINY_KEY"):
        Endpoint(config(server, key_variable="TINY_KEY")).probabilities(PROMPTS[1:2], YES_NO)
    server.fail = lambda number: "redirect"
    with pytest.raises(LanguageModelError, match="answers 302"):
        Endpoint(config(server, key_variable="TINY_KEY")).probabilities(PROMPTS[2:3], YES_NO)
    assert len(server.keys) == 3, "a redirect is not followed"
    with pytest.raises(LanguageModelError, match="key of TINY_KEY in clear text; use https"):
        Endpoint(EndpointConfig("http://example.org/v1", "m", key_variable="TINY_KEY"))


@pytest.mark.parametrize("url", ["https://me:hush@example.org/v1", "https://me:hu/sh@example.org/v1", "me:hush@x"])
def test_a_password_in_the_url_is_refused_and_never_shown(url: str) -> None:
    with pytest.raises(LanguageModelError, match=r"holds a user or password, .* variable OPENAI_API_KEY") as error:
        EndpointConfig(url, "m")
    assert "hu" not in str(error.value)


@pytest.mark.parametrize("fault", [429, 500, 503, "hang", "nonsense"])
def test_passing_faults_are_asked_again(server: Any, fault: Any) -> None:
    server.fail = lambda number: fault if number < 2 else None
    endpoint = Endpoint(config(server, concurrency=2, timeout=0.3, price_in=1.0))
    found = endpoint.probabilities(PROMPTS[:3], YES_NO)
    assert found[:, 1].tolist() == pytest.approx([server.chance(p.text) for p in PROMPTS[:3]], abs=1e-6)
    charged = 0 if isinstance(fault, int) else 2  # what broke off may have been charged, a refusal was not
    assert endpoint.store.spent.calls == 3 + charged


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (429, r"answers 429 \(no, None\) after 3 attempts; try again later, answers so far are kept"),
        (400, r"answers 400 \(no, None\); check the base URL, the model's name"),
        ("hang", "gave no answer within 0.2 seconds after 3 attempts"),
        ("nonsense", r"answers nonsense \(<html>hello\) after 3 attempts; check the base URL"),
        ("prose", "gives no logprobs; answers are read from token probabilities"),
    ],
)
def test_lasting_faults_end_in_one_line_and_answers_are_kept(
    server: Any, fault: Any, said: str, tmp_path: Path
) -> None:
    server.fail = lambda number: None if number < 2 else fault
    kept = tmp_path / "answers.sqlite"
    endpoint = Endpoint(config(server, attempts=3, timeout=0.2, concurrency=1), AnswerStore(kept))
    with pytest.raises(LanguageModelError, match=said) as caught:
        endpoint.probabilities(PROMPTS, YES_NO)
    assert "\n" not in str(caught.value)
    assert len(endpoint.store) == 2
    endpoint.store.close()

    server.fail, asked = (lambda number: None), len(server.questions)
    again = Endpoint(config(server), AnswerStore(kept)).probabilities(PROMPTS, YES_NO)
    assert again[:, 1].tolist() == pytest.approx([server.chance(p.text) for p in PROMPTS], abs=1e-6)
    assert len(server.questions) - asked == 4, "the run resumes where it was killed"


KILLED = """
import sys
from recloop.envs.users.language import AnswerStore, Endpoint, EndpointConfig, Prompt
prompts = [Prompt("Shown now: a shoe. ", "Would you click on number " + "1" * i) for i in range(6)]
config = EndpointConfig(sys.argv[1], "tiny-chat", key_variable="NO_KEY", concurrency=1)
Endpoint(config, AnswerStore(__import__("pathlib").Path(sys.argv[2]))).probabilities(prompts, ("no", "yes"))
"""


@pytest.mark.slow
def test_a_killed_run_has_paid_for_nothing_in_vain(server: Any, tmp_path: Path) -> None:
    kept = tmp_path / "answers.sqlite"
    running: list[subprocess.Popen[bytes]] = []

    def kill_at_the_fifth(number: int) -> Any:
        if number == 4:
            running[0].kill()
        return "hang" if number == 4 else None

    server.fail = kill_at_the_fifth
    running.append(subprocess.Popen([sys.executable, "-c", KILLED, server.url, str(kept)]))
    assert running[0].wait(timeout=60) == -signal.SIGKILL
    store = AnswerStore(kept)
    assert len(store) == store.spent.calls == 4
    server.fail = lambda number: None
    Endpoint(config(server), store).probabilities(PROMPTS, YES_NO)
    assert len(server.questions) == 5 + 2, "four were kept, two are asked"


def test_retry_after_is_kept_to(server: Any) -> None:
    server.fail = lambda number: 429 if number == 0 else None
    server.retry_after = "0.4"
    begin = time.perf_counter()
    Endpoint(config(server, longest_wait=2.0)).probabilities(PROMPTS[:1], YES_NO)
    assert time.perf_counter() - begin > 0.4


def test_calls_stay_within_the_budget_over_all_runs(server: Any, tmp_path: Path) -> None:
    store = AnswerStore(tmp_path / "answers.sqlite")
    with pytest.raises(BudgetError, match=r"4 of 4 calls are spent; the 4 answers are kept, raise the budget"):
        Endpoint(config(server, max_calls=4, concurrency=3), store).probabilities(PROMPTS, YES_NO)
    with pytest.raises(BudgetError, match="4 of 4 calls are spent"):
        Endpoint(config(server, max_calls=4), store).probabilities(PROMPTS, YES_NO)
    assert len(server.questions) == 4
    Endpoint(config(server, max_calls=6), store).probabilities(PROMPTS, YES_NO)
    assert len(server.questions) == 6


@pytest.mark.parametrize("fault", [None, 429])
def test_a_budget_is_spent_to_the_end_before_it_is_called_spent(server: Any, fault: int | None) -> None:
    """More calls at once than the budget holds: the others wait for those under way, which may yet cost nothing."""

    def slowly(number: int) -> int | None:
        time.sleep(0.1)
        return fault if number < 2 else None

    server.fail = slowly
    endpoint = Endpoint(config(server, max_calls=4, concurrency=6))
    with pytest.raises(BudgetError, match=r"4 of 4 calls are spent; the 4 answers are kept"):
        endpoint.probabilities(PROMPTS, YES_NO)
    assert len(server.questions) == (4 if fault is None else 6)


def test_a_failure_stops_those_who_wait_for_the_budget(server: Any) -> None:
    def slowly(number: int) -> int:
        time.sleep(0.1)
        return 400

    server.fail = slowly
    with pytest.raises(LanguageModelError, match="answers 400"):
        Endpoint(config(server, max_calls=2, concurrency=6)).probabilities(PROMPTS, YES_NO)
    assert len(server.questions) == 2


def test_money_is_never_overspent(server: Any) -> None:
    price = 100 * 1000 / 1e6  # of one answered question; the most that one may cost is about 120 tokens
    endpoint = Endpoint(config(server, max_money=0.35, price_in=1000.0, concurrency=4))
    with pytest.raises(BudgetError, match=r"of 0.35 is spent and the next call may cost 0\.1"):
        endpoint.probabilities(PROMPTS, YES_NO)
    assert 0 < endpoint.store.spent.money <= 0.35
    assert endpoint.store.spent.money == pytest.approx(price * len(server.questions))
    with pytest.raises(LanguageModelError, match="cannot be kept without prices; give price_in and price_out"):
        config(server, max_money=1.0)


def test_answers_that_are_no_option_are_none(server: Any) -> None:
    assert bool(Endpoint(config(server)).probabilities(PROMPTS, ("A", "B")).isnan().all())


def test_what_is_refused_at_once(server: Any, tmp_path: Path) -> None:
    with pytest.raises(LanguageModelError, match="base URL 'localhost:8000' is none"):
        Endpoint(EndpointConfig("localhost:8000", "m"))
    nobody = EndpointConfig("http://127.0.0.1:9/v1", "m", attempts=2, back_off=0.01)
    with pytest.raises(LanguageModelError, match=r"cannot be reached .* after 2 attempts; check the base URL"):
        Endpoint(nobody).probabilities(PROMPTS[:1], YES_NO)
    (tmp_path / "broken.sqlite").write_text("this is no database, and long enough to be looked at " * 10)
    with pytest.raises(LanguageModelError, match=r"broken.sqlite cannot be used .* name another file"):
        AnswerStore(tmp_path / "broken.sqlite")
