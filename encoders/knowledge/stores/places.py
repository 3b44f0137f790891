"""Where a store lies, as one text: `ladybug:graph.db`, `bolt://neo4j@host:7687/films`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote

from recloop.encoders.base.errors import EncoderError

if TYPE_CHECKING:
    from recloop.encoders.knowledge.stores.cypher import CypherStore

LADYBUG = "ladybug"
SERVERS = ("bolt", "bolt+s", "bolt+ssc", "neo4j", "neo4j+s", "neo4j+ssc")
"""Schemes of Neo4j's driver: `neo4j` asks a cluster where to go, `+s` is TLS, `+ssc` trusts any certificate."""


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


def is_store(place: str) -> bool:
    """Whether `open_store` is meant: `ladybug:...` or a server's scheme.

    >>> is_store("ladybug:graph.db"), is_store("bolt://localhost"), is_store("triples.nt")
    (True, True, False)
    """
    scheme, colon, rest = place.partition(":")
    return bool(colon) and (scheme == LADYBUG or (scheme in SERVERS and rest.startswith("//")))


def without_password(place: str) -> str:
    """`place` as it may be written down: the password is left out, all else stays.

    >>> without_password("neo4j+s://me:secret@graph.example.org")
    'neo4j+s://me@graph.example.org'
    >>> without_password("ladybug:graph.db")
    'ladybug:graph.db'
    """
    scheme, colon, _ = place.partition("://")
    return ServerPlace.parse(place).shown if colon and scheme in SERVERS else place


def open_store(place: str) -> CypherStore:
    """The store at `place`: ``ladybug:PATH``, or ``bolt://`` and ``neo4j://`` with ``+s`` for TLS.

    A server's URL may hold user and database, ``bolt://neo4j@host:7687/films``; the password is read from the
    environment variable RECLOOP_NEO4J_PASSWORD (one in the URL is taken too, but then it lies in the shell's history).
    Nothing is opened before the first question.

    Raises:
        EncoderError: for anything else; what stands behind the scheme is not repeated, since it may be a password.
    """
    scheme, colon, rest = place.partition(":")
    if scheme == LADYBUG and rest:
        from recloop.encoders.knowledge.stores.ladybug_store import LadybugStore

        return LadybugStore(rest)
    if colon and scheme in SERVERS:
        from recloop.encoders.knowledge.stores.neo4j_store import Neo4jStore

        return Neo4jStore(place)
    raise EncoderError(
        f"unknown graph store '{scheme}{colon}{'...' if rest else ''}'; give ladybug:PATH, bolt://HOST:7687 or "
        "neo4j://HOST:7687 (neo4j+s:// for TLS)"
    )
