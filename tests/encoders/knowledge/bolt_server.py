"""A small Bolt 5.2 server on the loopback, for tests: what a driver asks is run in a Ladybug database.

Written after the published description of Bolt and PackStream. It knows the messages that Neo4j's driver sends for
sessions and transactions, and no more.
"""

import contextlib
import enum
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ladybug

from recloop.encoders.knowledge.stores.ladybug_store import SCHEMA


class Tag(enum.IntEnum):
    """The first byte of a message's structure."""

    HELLO = 0x01
    GOODBYE = 0x02
    RESET = 0x0F
    RUN = 0x10
    BEGIN = 0x11
    COMMIT = 0x12
    ROLLBACK = 0x13
    DISCARD = 0x2F
    PULL = 0x3F
    ROUTE = 0x66
    LOGON = 0x6A
    SUCCESS = 0x70
    RECORD = 0x71
    IGNORED = 0x7E
    FAILURE = 0x7F


PLAIN = {0xC0: None, 0xC2: False, 0xC3: True}
NUMBERS = {0xC1: ">d", 0xC8: ">b", 0xC9: ">h", 0xCA: ">i", 0xCB: ">q"}
SIZED = {0xD0: ("text", ">B"), 0xD1: ("text", ">H"), 0xD2: ("text", ">I")}
SIZED |= {0xD4: ("list", ">B"), 0xD5: ("list", ">H"), 0xD6: ("list", ">I")}
SIZED |= {0xD8: ("map", ">B"), 0xD9: ("map", ">H"), 0xDA: ("map", ">I")}
TINY = {0x80: "text", 0x90: "list", 0xA0: "map", 0xB0: "structure"}


def pack(value: Any) -> bytes:
    """PackStream bytes of a plain value."""
    match value:
        case None:
            return b"\xc0"
        case bool():
            return b"\xc3" if value else b"\xc2"
        case int():
            return b"\xcb" + struct.pack(">q", value)
        case float():
            return b"\xc1" + struct.pack(">d", value)
        case str():
            text = value.encode()
            return b"\xd2" + struct.pack(">I", len(text)) + text
        case list() | tuple():
            return b"\xd6" + struct.pack(">I", len(value)) + b"".join(map(pack, value))
        case Mapping():
            return b"\xda" + struct.pack(">I", len(value)) + b"".join(pack(k) + pack(v) for k, v in value.items())
    raise TypeError(f"no PackStream form for {type(value).__name__}")


class Unpacker:
    """Values out of PackStream bytes; a structure comes as (tag, fields)."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, form: str) -> Any:
        (value,) = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return value

    def value(self) -> Any:
        marker = self.take(">B")
        if marker < 0x80:
            return marker
        if marker >= 0xF0:
            return marker - 0x100
        if marker in PLAIN:
            return PLAIN[marker]
        if marker in NUMBERS:
            return self.take(NUMBERS[marker])
        if marker in SIZED:
            kind, form = SIZED[marker]
            return self.composed(kind, self.take(form))
        return self.composed(TINY[marker & 0xF0], marker & 0x0F)

    def composed(self, kind: str, size: int) -> Any:
        match kind:
            case "text":
                self.at += size
                return self.data[self.at - size : self.at].decode()
            case "list":
                return [self.value() for _ in range(size)]
            case "map":
                return {self.value(): self.value() for _ in range(size)}
        return self.take(">B"), [self.value() for _ in range(size)]


class BoltServer(socketserver.ThreadingTCPServer):
    """Serves one Ladybug database; `ways` lets a test make it misbehave.

    `asked` keeps every query's text. ways: "drop" closes the line at the first query, "drop late" within a build when
    the triples come, "mute" never answers a greeting, "slow" answers queries with a time-out.
    """

    daemon_threads = True
    user, password, databases = "neo4j", "s3cr3t/p@ss", (None, "neo4j")

    def __init__(self, path: Path) -> None:
        super().__init__(("127.0.0.1", 0), Session)
        self.database = ladybug.Database(path, buffer_pool_size=64 * 2**20, max_num_threads=1)
        connection = ladybug.Connection(self.database)
        for statement in SCHEMA:
            connection.execute(statement)
        connection.close()
        self.asked: list[str] = []
        self.ways = ""

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A line that breaks off is part of the tests."""


class Session(socketserver.BaseRequestHandler):
    """One connection of a driver."""

    server: BoltServer

    def handle(self) -> None:
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # small answers must not wait for each other
        if self.server.ways == "mute":
            time.sleep(3)
            return
        proposals = self._receive(20)
        assert proposals[:4] == b"\x60\x60\xb0\x17"
        self.request.sendall(b"\x00\x00\x02\x05")  # Bolt 5.2
        self.ladybug = ladybug.Connection(self.server.database)
        self.rows: list[list[Any]] = []
        self.failed = self.within = False
        try:
            while True:
                tag, fields = self._message()
                if tag == Tag.GOODBYE:
                    return
                self._answer(tag, fields)
        finally:
            if self.within:
                self.ladybug.execute("ROLLBACK")
            self.ladybug.close()

    def _answer(self, tag: int, fields: list[Any]) -> None:
        if tag == Tag.RESET:
            if self.within:
                self.ladybug.execute("ROLLBACK")
            self.failed = self.within = False
            return self._say(Tag.SUCCESS, {})
        if self.failed:
            return self._say(Tag.IGNORED)
        match tag:
            case Tag.HELLO:
                self._say(Tag.SUCCESS, {"server": "Neo4j/5.7.0", "connection_id": "bolt-1"})
            case Tag.LOGON:
                if (fields[0].get("principal"), fields[0].get("credentials")) != (
                    self.server.user,
                    self.server.password,
                ):
                    return self._fail("Security.Unauthorized", f"wrong: {fields[0].get('credentials')}")
                self._say(Tag.SUCCESS, {})
            case Tag.RUN:
                self._run(*fields)
            case Tag.PULL | Tag.DISCARD:
                for row in self.rows if tag == Tag.PULL else []:
                    self._say(Tag.RECORD, row)
                self.rows = []
                self._say(Tag.SUCCESS, {"has_more": False})
            case Tag.BEGIN:
                self._transaction("BEGIN TRANSACTION", fields[0])
            case Tag.COMMIT | Tag.ROLLBACK:
                self._transaction("COMMIT" if tag == Tag.COMMIT else "ROLLBACK", {})
            case Tag.ROUTE:
                servers = [{"role": r, "addresses": [self.server.address]} for r in ("ROUTE", "READ", "WRITE")]
                self._say(Tag.SUCCESS, {"rt": {"ttl": 300, "db": "neo4j", "servers": servers}})
            case _:
                self._say(Tag.SUCCESS, {})

    def _transaction(self, statement: str, extra: Mapping[str, Any]) -> None:
        if extra.get("db") not in self.server.databases:
            return self._fail("Database.DatabaseNotFound", "Database does not exist.")
        self.ladybug.execute(statement)
        self.within = statement.startswith("BEGIN")
        self._say(Tag.SUCCESS, {})

    def _run(self, query: str, parameters: dict[str, Any], extra: Mapping[str, Any]) -> None:
        self.server.asked.append(query)
        if self.server.ways == "drop" or (self.server.ways == "drop late" and "line.head" in query):
            raise ConnectionAbortedError
        if self.server.ways == "slow":
            return self._fail("Transaction.TransactionTimedOut", "The transaction has been terminated.")
        if extra.get("db") not in self.server.databases:
            return self._fail("Database.DatabaseNotFound", "Database does not exist.")
        if query.startswith("CREATE CONSTRAINT"):  # Ladybug's primary keys hold it already
            return self._say(Tag.SUCCESS, {"fields": []})
        try:
            result = self.ladybug.execute(query, parameters)
            assert isinstance(result, ladybug.QueryResult)
            self.rows = [list(row) for row in result.get_all()]
        except RuntimeError as error:
            return self._fail("Statement.SyntaxError", str(error))
        self._say(Tag.SUCCESS, {"fields": result.get_column_names()})

    def _fail(self, code: str, message: str) -> None:
        self.failed = True
        self._say(Tag.FAILURE, {"code": f"Neo.ClientError.{code}", "message": message})

    def _say(self, tag: int, *fields: Any) -> None:
        body = bytes([0xB0 + len(fields), tag]) + b"".join(map(pack, fields))
        chunks = [body[i : i + 0xFFFF] for i in range(0, len(body), 0xFFFF)]
        self.request.sendall(b"".join(struct.pack(">H", len(c)) + c for c in chunks) + b"\x00\x00")

    def _message(self) -> tuple[int, list[Any]]:
        body = b""
        while True:
            (size,) = struct.unpack(">H", self._receive(2))
            if size:
                body += self._receive(size)
            elif body:
                tag, fields = Unpacker(body).value()
                return tag, fields

    def _receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self.request.recv(size - len(data))
            if not more:
                raise ConnectionAbortedError
            data += more
        return data


@contextlib.contextmanager
def serving(path: Path) -> Iterator[BoltServer]:
    """A running server over a fresh database file at `path`."""
    with BoltServer(path) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
