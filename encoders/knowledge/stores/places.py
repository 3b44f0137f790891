"""Where a store lies, as one text: `ladybug:graph.db`, `bolt://neo4j@host:7687/films`."""

from recloop.encoders.base.errors import EncoderError
from recloop.encoders.knowledge.stores.cypher import CypherStore
from recloop.encoders.knowledge.stores.neo4j_store import SERVERS, Neo4jStore, ServerPlace

LADYBUG = "ladybug"


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
        return Neo4jStore(place)
    raise EncoderError(
        f"unknown graph store '{scheme}{colon}{'...' if rest else ''}'; give ladybug:PATH, bolt://HOST:7687 or "
        "neo4j://HOST:7687 (neo4j+s:// for TLS)"
    )
