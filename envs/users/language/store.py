"""Answers kept on disk by content, with what they cost: a killed run resumes and pays for nothing twice."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recloop.encoders.base.errors import LanguageModelError


@dataclass(frozen=True)
class Spent:
    """What was spent, over all runs that used a store.

    Args:
        calls: questions that were answered afresh, and calls that may have been charged without an answer.
        money: in the currency of the prices.
        seconds: wall clock of asking.
    """

    calls: int = 0
    money: float = 0.0
    seconds: float = 0.0


def content_key(*facts: Any) -> str:
    """sha256 over facts that JSON can hold."""
    return hashlib.sha256(json.dumps(facts, ensure_ascii=True).encode()).hexdigest()


class AnswerStore:
    """Answers by content key in one SQLite file; every answer is on disk before the next is asked for.

    Safe to use from several threads and processes. Without a path it lives in memory.

    Args:
        path: the file; made where it is missing.

    Raises:
        LanguageModelError: the file is damaged, cannot be written, or is no store.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._rows = sqlite3.connect(path or ":memory:", check_same_thread=False, timeout=30)
            with self._rows:
                self._rows.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL)")
                self._rows.execute("CREATE TABLE IF NOT EXISTS spent (calls INTEGER, money REAL, seconds REAL)")
                self._rows.execute("INSERT INTO spent SELECT 0, 0, 0 WHERE NOT EXISTS (SELECT 1 FROM spent)")
        except (sqlite3.Error, OSError) as error:
            raise self._unusable(error) from None

    def get(self, key: str) -> Any:
        """The answer under a key, or None."""
        found = self._run("SELECT answer FROM answers WHERE key = ?", (key,))
        return json.loads(found[0][0]) if found else None

    def put(self, answers: dict[str, Any], calls: int = 0, money: float = 0.0) -> None:
        """Keep answers and count what they cost, both or neither."""
        with self._lock:
            try:
                with self._rows:
                    rows = [(key, json.dumps(answer)) for key, answer in answers.items()]
                    self._rows.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?)", rows)
                    self._rows.execute("UPDATE spent SET calls = calls + ?, money = money + ?", (calls, money))
            except sqlite3.Error as error:
                raise self._unusable(error) from None

    def took(self, seconds: float) -> None:
        """Count time spent asking."""
        self._run("UPDATE spent SET seconds = seconds + ?", (seconds,))

    @property
    def spent(self) -> Spent:
        """Over all runs."""
        return Spent(*self._run("SELECT calls, money, seconds FROM spent", ())[0])

    def __len__(self) -> int:
        return int(self._run("SELECT count(*) FROM answers", ())[0][0])

    def close(self) -> None:
        """Let go of the file."""
        self._rows.close()

    def _run(self, query: str, values: tuple[Any, ...]) -> list[Any]:
        with self._lock:
            try:
                with self._rows:
                    return self._rows.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise self._unusable(error) from None

    def _unusable(self, error: Exception) -> LanguageModelError:
        return LanguageModelError(
            f"the store of answers {self.path or 'in memory'} cannot be used ({error}); free space, mend the path, or "
            "name another file"
        )
