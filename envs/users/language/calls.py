"""Single HTTP calls to a chat endpoint: what came back, in words, and how long to wait before the next."""

from __future__ import annotations

import email.utils
import hashlib
import http.client
import ipaddress
import json
import math
import os
import socket
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import IO, Any
from urllib.parse import urlsplit

from recloop.encoders.base.errors import LanguageModelError

_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Statuses after which asking again may help."""
_MOST_BYTES = 4 << 20
"""An answer of one token is never longer."""


@dataclass(frozen=True)
class Answered:
    """An answer.

    Args:
        tokens: the likeliest first tokens with their log-probabilities.
        usage: tokens of question and answer as charged, or None where the endpoint does not say.
    """

    tokens: list[tuple[str, float]]
    usage: tuple[int, int] | None


@dataclass(frozen=True)
class Unanswered:
    """No answer.

    Args:
        reason: in words.
        fatal: asking again cannot help.
        charged: the call may have been charged.
        retry_after: seconds that the endpoint asks to wait, or None.
        usage: as in `Answered`.
        where: the endpoint.
        mend: the way out.
    """

    reason: str
    where: str
    fatal: bool = False
    charged: bool = False
    retry_after: float | None = None
    usage: tuple[int, int] | None = None
    mend: str = "try again later, answers so far are kept"

    def said(self, attempts: int) -> str:
        """For a person."""
        after = f" after {attempts} attempts" if attempts > 1 else ""
        return f"{self.where} {self.reason}{after}; {self.mend}"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected call would carry the key to wherever it points."""

    def redirect_request(self, *arguments: Any, **named: Any) -> None:
        return None


class ChatCalls:
    """Calls to `base_url`/chat/completions.

    Args:
        base_url: http or https.
        key_variable: environment variable of the key.
        timeout, attempts, back_off, longest_wait: see `EndpointConfig`.

    Raises:
        LanguageModelError: no URL, or a key that would travel in clear text.
    """

    def __init__(
        self,
        base_url: str,
        key_variable: str,
        *,
        timeout: float,
        attempts: int,
        back_off: float,
        longest_wait: float,
    ) -> None:
        self.url = base_url.rstrip("/") + "/chat/completions"
        self.timeout, self.attempts = timeout, attempts
        self.back_off, self.longest_wait = back_off, longest_wait
        self.key_variable, self._key = key_variable, os.environ.get(key_variable, "").strip()
        address = urlsplit(base_url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise LanguageModelError(f"base URL '{base_url}' is none; give one such as http://localhost:8000/v1")
        if address.scheme == "http" and self._key and not _is_local(address.hostname):
            raise LanguageModelError(
                f"{base_url} would get the key of {key_variable} in clear text; use https, or name a variable without "
                "a key"
            )
        self._opener = urllib.request.build_opener(_NoRedirect)

    def once(self, request: dict[str, Any]) -> Answered | Unanswered:
        """One call; never raises for what an endpoint does."""
        headers = {"Content-Type": "application/json", "User-Agent": "recloop"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        body = json.dumps(request).encode()
        call = urllib.request.Request(self.url, data=body, headers=headers, method="POST")
        deadline = time.monotonic() + self.timeout
        try:
            with self._opener.open(call, timeout=self.timeout) as response:
                return self._read(_all_of(response, deadline))
        except urllib.error.HTTPError as error:
            with error:
                return self._refused(error, deadline)
        except (TimeoutError, urllib.error.URLError, http.client.HTTPException, OSError) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, TimeoutError | socket.timeout):
                return self._no(f"gave no answer within {self.timeout:g} seconds", charged=True)
            if isinstance(reason, ConnectionRefusedError | socket.gaierror):
                return self._no(f"cannot be reached ({reason})", mend="check the base URL and that it is running")
            return self._no(f"broke off ({type(reason).__name__}: {reason})", charged=True)

    def pause(self, outcome: Unanswered, attempt: int, salt: str) -> float:
        """Seconds before the next attempt: what the endpoint asks for, else doubling, between half and all of it."""
        if outcome.retry_after is not None:
            return min(outcome.retry_after, self.longest_wait)
        jitter = hashlib.sha256(f"{salt}/{attempt}".encode()).digest()[0] / 255
        return float(min(self.back_off * 2**attempt, self.longest_wait) * (0.5 + 0.5 * jitter))

    def _read(self, body: bytes) -> Answered | Unanswered:
        """The probabilities of the first token, out of the answer's JSON."""
        try:
            facts = json.loads(body)
            choice = facts["choices"][0]
            usage = _usage(facts.get("usage"))
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            return self._no(
                f"answers nonsense ({self._clean(body)})", charged=True, mend="check the base URL and model"
            )
        try:
            logprobs = choice.get("logprobs") or {}
            first = (logprobs.get("content") or [])[0]
            listed = {str(one["token"]): float(one["logprob"]) for one in (first.get("top_logprobs") or [first])}
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            listed = {}
        tokens = [(token, min(score, 0.0)) for token, score in listed.items() if not math.isnan(score)]
        if not tokens:
            return self._no(
                "gives no logprobs",
                fatal=True,
                charged=True,
                usage=usage,
                mend="answers are read from token probabilities; name an endpoint and model that give top_logprobs",
            )
        return Answered(tokens, usage)

    def _refused(self, error: urllib.error.HTTPError, deadline: float) -> Unanswered:
        try:
            words = self._clean(_all_of(error, deadline))
        except (OSError, http.client.HTTPException):
            words = "no reason given"
        reason = f"answers {error.code} ({words})"
        if error.code in (401, 403):
            return self._no(reason, fatal=True, mend=f"set the key in the environment variable {self.key_variable}")
        if error.code in _AGAIN:
            return self._no(reason, retry_after=_retry_after(error.headers.get("Retry-After")))
        return self._no(reason, fatal=True, mend="check the base URL, the model's name and what it supports")

    def _clean(self, body: bytes) -> str:
        """The beginning of a body in one line, without the key."""
        text = " ".join(body[:2000].decode("utf-8", "replace").split())
        text = text.replace(self._key, "[key]") if self._key else text
        return text[:160] or "empty"

    def _no(self, reason: str, **named: Any) -> Unanswered:
        return Unanswered(reason, self.url, **named)


def _all_of(response: IO[bytes], deadline: float) -> bytes:
    """The whole body; `TimeoutError` once the deadline is past, also where bytes keep trickling in."""
    parts, size = [], 0
    read = getattr(response, "read1", response.read)
    while part := read(65536):
        parts.append(part)
        size += len(part)
        if time.monotonic() > deadline:
            raise TimeoutError
        if size > _MOST_BYTES:
            break
    return b"".join(parts)


def _usage(facts: Any) -> tuple[int, int] | None:
    if not isinstance(facts, dict):
        return None
    asked, said = facts.get("prompt_tokens"), facts.get("completion_tokens")
    if not isinstance(asked, int) or not isinstance(said, int) or min(asked, said) < 0:
        return None
    return asked, said


def _retry_after(value: str | None) -> float | None:
    """Seconds out of a Retry-After header: a number or a date."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
