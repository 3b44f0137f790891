"""A Neo4j server, over its official driver."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

from recloop.encoders.base.errors import EncoderError
from recloop.encoders.base.progress import progress_bar
from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.encoders.knowledge.stores.contract import checked
from recloop.encoders.knowledge.stores.cypher import ENTITY, RELATION, TRIPLE, CypherStore

if TYPE_CHECKING:
    from neo4j import Driver, Session

SERVERS = ("bolt", "bolt+s", "bolt+ssc", "neo4j", "neo4j+s", "neo4j+ssc")
"""Schemes of Neo4j's driver: `neo4j` asks a cluster where to go, `+s` is TLS, `+ssc` trusts any certificate."""
PASSWORD_VARIABLE = "RECLOOP_NEO4J_PASSWORD"
_BATCH = 10_000
"""Rows a statement: a few megabytes, well under the server's default memory for one transaction."""

_CONSTRAINTS = tuple(
    f"CREATE CONSTRAINT {label.lower()}_name IF NOT EXISTS FOR (n:{label}) REQUIRE n.name IS UNIQUE"
    for label in (ENTITY, RELATION)
)
_CLEAR = tuple(f"MATCH (n:{label}) DETACH DELETE n" for label in (ENTITY, RELATION))
_ADD_ENTITIES = f"UNWIND $rows AS line CREATE (:{ENTITY} {{name: line.name, row: line.row}})"
_ADD_RELATIONS = f"UNWIND $rows AS line CREATE (:{RELATION} {{name: line.name, row: line.row}})"
_ADD_TRIPLES = (
    f"UNWIND $rows AS line MATCH (h:{ENTITY} {{name: line.head}}), (t:{ENTITY} {{name: line.tail}}) "
    f"CREATE (h)-[:{TRIPLE} {{relation: line.relation, row: line.row, head: line.head_row}}]->(t)"
)

T = TypeVar("T")


@dataclass(frozen=True)
class ServerPlace:
    """A Neo4j server's address, with what its URL says of the login.

    Args:
        url: scheme, host and port alone.
        user, password, database: None where the URL does not hold them; the password shows in no repr.
    """

    url: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    database: str | None = None

    @classmethod
    def parse(cls, url: str) -> ServerPlace:
        """Read `scheme://user:password@host:port/database`; all but scheme and host may be missing.

        A password may hold any character, `/` and `@` among them: the last @ ends it. `urllib` would take part of
        such a one for the host and name it in its error, as no error of this function does.
        """
        scheme, _, rest = url.partition("://")
        login, at, address = rest.rpartition("@")
        host, _, database = address.partition("/")
        name, colon, port = host.rpartition(":")
        if host.startswith("[") and host.endswith("]"):  # an IPv6 address without a port
            name, colon, port = host, "", ""
        if scheme not in SERVERS or not host or (colon and not (name and port.isdecimal() and int(port) < 65_536)):
            raise EncoderError(
                f"the address of a graph server must read like bolt://neo4j@localhost:7687/database, with one of "
                f"{', '.join(SERVERS)} before :// and a port below 65536"
            )
        user, colon, password = login.partition(":")
        return cls(
            f"{scheme}://{host}",
            unquote(user) if at and user else None,
            unquote(password) if colon else None,
            unquote(database.strip("/")) or None,
        )

    @property
    def shown(self) -> str:
        """The place without its password.

        >>> ServerPlace.parse("bolt://neo4j:secret@localhost:7687/films").shown
        'bolt://neo4j@localhost:7687/films'
        """
        scheme, _, host = self.url.partition("://")
        login = f"{self.user}@" if self.user else ""
        return f"{scheme}://{login}{host}" + (f"/{self.database}" if self.database else "")


class Neo4jStore(CypherStore):
    """A `GraphStore` in a Neo4j database (5.x, or another server that speaks Bolt 4.4 or 5 and this Cypher).

    It reads and writes only nodes of its own labels (`cypher.ENTITY`, `cypher.RELATION`); other data in the database
    stay. `build` is one transaction, so a build that breaks off leaves the old graph; 300,000 triples in one may need
    the server's `dbms.memory.transaction.total.max` raised. What was run against what: the tests drive this class and
    the real driver over the wire against a small Bolt server that executes every query in Ladybug; no Neo4j
    server was at hand, and the two CREATE CONSTRAINT statements, which Ladybug does not know, were run by nothing.

    Args:
        url: such as `bolt://localhost:7687`; may hold user, password and database.
        user: name to log in with; default the URL's, then "neo4j" where there is a password.
        password: default the URL's, then the environment variable RECLOOP_NEO4J_PASSWORD; without any, no login is
            tried. It is handed to the driver and kept nowhere else: no message, repr or log holds it.
        database: default the URL's, then the server's own default.
        timeout: most seconds for connecting, and for one question, which the server itself then ends.
        build_timeout: the same for a build.

    Raises:
        EncoderError: without the driver, for a malformed URL; and, by any method, where the server is down, refuses the
            login, does not know the database, or takes too long.
    """

    def __init__(
        self,
        url: str,
        user: str | None = None,
        password: str | None = None,
        database: str | None = None,
        timeout: float = 30.0,
        build_timeout: float = 600.0,
    ) -> None:
        place = ServerPlace.parse(url)
        password = next((p for p in (password, place.password, os.environ.get(PASSWORD_VARIABLE)) if p), None)
        user = user or place.user or ("neo4j" if password else None)
        self._database = database or place.database
        self._place = ServerPlace(place.url, user, None, self._database)
        self._timeout, self._build_timeout = timeout, build_timeout
        self._driver = _driver(place.url, (user or "neo4j", password) if password else None, timeout)

    @property
    def where(self) -> str:
        """The server's URL with user and database."""
        return self._place.shown

    def build(self, graph: KnowledgeGraph, progress: bool = False) -> None:
        """Put `graph` in place of the one in the database; see `GraphStore`."""
        graph = checked(graph)
        self._guarded(lambda: self._build(graph, progress))

    def close(self) -> None:
        """Close the connections."""
        self._driver.close()

    def _rows(self, query: str, parameters: Mapping[str, Any]) -> list[Sequence[Any]]:
        from neo4j import READ_ACCESS, Query

        def ask() -> list[Sequence[Any]]:
            with self._session(default_access_mode=READ_ACCESS) as session:
                # The text is one of ours, or `select`'s; the driver's type asks for a literal.
                text: Any = query
                return [record.values() for record in session.run(Query(text, timeout=self._timeout), dict(parameters))]

        return self._guarded(ask)

    def _build(self, graph: KnowledgeGraph, progress: bool) -> None:
        with self._session() as session:
            for statement in _CONSTRAINTS:
                session.run(statement).consume()
            bar = progress_bar(total=len(graph.triples), desc="graph store", unit="triple", disable=not progress)
            with bar, session.begin_transaction(timeout=self._build_timeout) as transaction:
                for statement in _CLEAR:
                    transaction.run(statement).consume()
                for add, names in ((_ADD_ENTITIES, graph.entities), (_ADD_RELATIONS, graph.relations)):
                    for rows in _batches({"name": name, "row": row} for row, name in enumerate(names)):
                        transaction.run(add, rows=rows).consume()
                for rows in _batches(_triples(graph)):
                    transaction.run(_ADD_TRIPLES, rows=rows).consume()
                    bar.update(len(rows))
                transaction.commit()

    @contextmanager
    def _session(self, **options: Any) -> Iterator[Session]:
        with self._driver.session(database=self._database, **options) as session:
            yield session

    def _guarded(self, work: Callable[[], T]) -> T:
        """Do `work`; what the driver raises becomes one line.

        It is raised outside of the `except`, so that no driver error, whose frames hold the login, hangs on it.
        """
        from neo4j.exceptions import DriverError, Neo4jError

        try:
            return work()
        except (DriverError, Neo4jError, OSError) as error:
            said = self._said(error)
        raise EncoderError(said)

    def _said(self, error: Exception) -> str:
        from neo4j.exceptions import AuthError, Neo4jError, ServiceUnavailable, SessionExpired

        code = str(error.code) if isinstance(error, Neo4jError) else ""
        if isinstance(error, AuthError) or ".Security." in code:
            return f"{self.where} refuses the login; check the user's name and put the password in {PASSWORD_VARIABLE}"
        if code.endswith("DatabaseNotFound"):
            database = self._database or "its default"
            return f"{self.where} has no database '{database}'; name one that is there, as in bolt://host:7687/neo4j"
        if "TimedOut" in code or "Timeout" in code or "timed out" in str(error).lower():
            return f"{self.where} did not answer within {self._timeout:g} s; ask for less or raise the timeout"
        if isinstance(error, ServiceUnavailable | SessionExpired | OSError):
            return f"{self.where} cannot be reached or broke off; check that the server runs and the address is right"
        message = error.message if isinstance(error, Neo4jError) else str(error)
        line = (str(message).splitlines() or [""])[0]
        return f"{self.where} cannot answer: {code or type(error).__name__}: {line}"


def _driver(url: str, login: tuple[str, str] | None, timeout: float) -> Driver:
    try:
        import neo4j
    except ImportError:
        raise EncoderError("a Neo4j server needs its driver; pip install 'recloop[kg]'") from None
    return neo4j.GraphDatabase.driver(
        url,
        auth=login,
        connection_timeout=timeout,
        connection_acquisition_timeout=timeout,
        max_transaction_retry_time=0,
        notifications_min_severity="OFF",
        user_agent="recloop",
    )


def _triples(graph: KnowledgeGraph) -> Iterator[dict[str, Any]]:
    for row, (head, relation, tail) in enumerate(graph.triples.tolist()):
        yield {
            "head": graph.entities[head],
            "relation": graph.relations[relation],
            "tail": graph.entities[tail],
            "row": row,
            "head_row": head,
        }


def _batches(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
