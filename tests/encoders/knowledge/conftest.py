"""A Bolt server for the tests of the graph stores: test modules cannot import each other, so fixtures bring it."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def bolt_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A running `BoltServer` over an empty Ladybug database."""
    spec = importlib.util.spec_from_file_location("bolt_server", Path(__file__).with_name("bolt_server.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.serving(tmp_path_factory.mktemp("bolt") / "graph.db") as server:
        yield server


@pytest.fixture
def server(bolt_server: Any) -> Any:
    """The server, well-behaved and with nothing asked."""
    bolt_server.ways = ""
    bolt_server.asked.clear()
    return bolt_server
