"""The official driver against a Bolt server of our own: what goes wrong is said in one line, without the password."""

import logging
import sys
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from recloop.encoders.base.errors import EncoderError
from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.encoders.knowledge.stores import Neo4jStore, open_store, without_password
from recloop.encoders.knowledge.stores.places import ServerPlace, is_store

FILMS = KnowledgeGraph.from_names(["Alien", "Blade Runner"], ["by", "by"], ["Scott", "Scott"])
OTHERS = KnowledgeGraph.from_names(["Heat"], ["by"], ["Mann"])


@pytest.fixture
def opened(server: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Neo4jStore]:
    """Stores on the server, which holds `FILMS`."""
    monkeypatch.delenv("RECLOOP_NEO4J_PASSWORD", raising=False)

    def on(**options: Any) -> Neo4jStore:
        return Neo4jStore(f"bolt://{server.address}", **{"user": server.user, "password": server.password, **options})

    with on() as store:
        store.build(FILMS)
    server.asked.clear()
    return on


@pytest.mark.parametrize("form", ["bolt://{user}:{password}@{address}", "neo4j://{user}:{password}@{address}/neo4j"])
def test_login_in_the_url_or_in_the_environment(
    server: Any, opened: Any, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = form.format(user=server.user, password=server.password, address=server.address)
    with open_store(place) as store:
        assert store.graph().entities == FILMS.entities
        assert server.password not in repr(store)
        assert server.address in repr(store)
    monkeypatch.setenv("RECLOOP_NEO4J_PASSWORD", server.password)
    with open_store(without_password(place)) as store:
        assert store.entities() == 3


def test_names_travel_as_parameters(server: Any, opened: Any) -> None:
    with opened() as store:
        store.paths("Alien", "Blade Runner")
        store.neighbourhood(["Alien"], relations=["by"])
        store.build(OTHERS)
    assert len(server.asked) > 10
    assert not [query for query in server.asked for name in ("Alien", "Heat", "'by'", '"by"') if name in query]
    assert sum(query.startswith("CREATE CONSTRAINT") for query in server.asked) == 2


@pytest.mark.parametrize(
    ("ways", "options", "said"),
    [
        (
            "",
            {"password": "wrong-password"},
            "refuses the login; check the user's name and put the password in",
        ),
        ("", {"password": None, "user": None}, "refuses the login"),
        ("", {"database": "films"}, "has no database 'films'; name one that is there"),
        ("slow", {}, "did not answer within 1 s; ask for less or raise the timeout"),
        ("drop", {}, "cannot be reached or broke off; check that the server runs"),
        ("mute", {}, "cannot be reached or broke off"),
    ],
)
def test_failures_are_one_line_without_the_password(
    server: Any, opened: Any, ways: str, options: dict[str, Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.ways = ways
    with caplog.at_level(logging.DEBUG, logger="neo4j"), opened(timeout=1, **options) as store:
        for work in (store.entities, lambda: store.build(OTHERS)):
            with pytest.raises(EncoderError) as caught:
                work()
            message = str(caught.value)
            assert said in message
            assert message.startswith("bolt://")
            assert "\n" not in message
            told = "".join(traceback.format_exception(caught.value))
            assert caught.value.__cause__ is None
            assert caught.value.__context__ is None
            assert "password" not in repr(store)
            assert "wrong-password" not in told
            assert server.password not in told + caplog.text
    server.ways = ""
    with opened() as store:
        assert store.graph().entities == FILMS.entities


def test_a_build_that_breaks_off_leaves_the_old_graph(server: Any, opened: Any) -> None:
    server.ways = "drop late"
    with opened() as store, pytest.raises(EncoderError, match="cannot be reached or broke off"):
        store.build(OTHERS)
    assert any("DETACH DELETE" in query for query in server.asked)
    server.ways = ""
    with opened() as store:
        assert store.graph().entities == FILMS.entities


def test_a_server_that_is_down_and_a_host_that_is_not_there(server: Any) -> None:
    for url in ("bolt://neo4j:geheim@127.0.0.1:1", "bolt+s://neo4j:geheim@no-such-host.invalid:7687/films"):
        with open_store(url) as store, pytest.raises(EncoderError, match="cannot be reached") as caught:
            store.graph()
        assert "geheim" not in str(caught.value)


def test_a_query_of_their_own(opened: Any) -> None:
    with opened() as store:
        graph = store.select("MATCH (h)-[r:RECLOOP_TRIPLE]->(t) RETURN h.name, upper(r.relation), t.name")
        assert (len(graph.triples), graph.relations) == (2, ("BY",))
        with pytest.raises(EncoderError, match=r"cannot answer: Neo.ClientError.Statement.SyntaxError: "):
            store.select("MATCH (h")


@pytest.mark.parametrize(
    ("url", "parts", "shown"),
    [
        ("bolt://localhost", ("bolt://localhost", None, None, None), "bolt://localhost"),
        ("neo4j+s://me@h:7687/films", ("neo4j+s://h:7687", "me", None, "films"), "neo4j+s://me@h:7687/films"),
        ("bolt://me:a/b@c:d#e@h:1/", ("bolt://h:1", "me", "a/b@c:d#e", None), "bolt://me@h:1"),
        ("bolt://me:%40%2F@[::1]:7687", ("bolt://[::1]:7687", "me", "@/", None), "bolt://me@[::1]:7687"),
        ("bolt://[::1]", ("bolt://[::1]", None, None, None), "bolt://[::1]"),
    ],
)
def test_addresses(url: str, parts: tuple[str | None, ...], shown: str) -> None:
    place = ServerPlace.parse(url)
    assert (place.url, place.user, place.password, place.database) == parts
    assert place.shown == without_password(url) == shown
    assert is_store(url)
    assert parts[2] is None or parts[2] not in repr(place)


@pytest.mark.parametrize("url", ["bolt://me:geheim@", "bolt://me:geheim@h:port", "bolt://:geheim@:1", "bolt:/geheim@h"])
def test_an_address_that_cannot_be_read_is_not_repeated(url: str) -> None:
    with pytest.raises(EncoderError, match="must read like bolt://neo4j@localhost:7687/database") as caught:
        open_store(url)
    assert "geheim" not in str(caught.value)


def test_without_the_driver_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "neo4j", None)
    with pytest.raises(EncoderError, match=r"pip install 'recloop\[kg\]'"):
        open_store("bolt://localhost")
