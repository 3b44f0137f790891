"""An embedded graph database in one file: Ladybug, the kept fork of Kuzu."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from recloop.encoders.base.errors import EncoderError
from recloop.encoders.base.progress import progress_bar
from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.encoders.knowledge.stores.contract import checked
from recloop.encoders.knowledge.stores.cypher import ENTITY, RELATION, TRIPLE, CypherStore

if TYPE_CHECKING:
    from ladybug import Connection, Database

SCHEMA = (
    f"CREATE NODE TABLE {ENTITY}(name STRING, row INT64, PRIMARY KEY(name))",
    f"CREATE NODE TABLE {RELATION}(name STRING, row INT64, PRIMARY KEY(name))",
    f"CREATE REL TABLE {TRIPLE}(FROM {ENTITY} TO {ENTITY}, relation STRING, row INT64, head INT64)",
)
"""Ladybug is typed: tables must stand before anything is put in them."""


class LadybugStore(CypherStore):
    """A `GraphStore` in a file of its own, with no server.

    `build` copies Arrow tables in bulk into a file beside and renames it, so a killed build leaves the last good
    store, and building the same graph twice gives the same answers. All else opens the file read-only: any number
    of processes may ask at once, and one that asks while another builds sees the old graph until it opens anew.

    Args:
        path: the database file, such as `graph.db`.
        buffer_pool_size: most bytes of the file's pages held in memory; Ladybug's own default is 80 % of the
            machine. A build or question that needs more fails and says so.
        threads: most threads of a question; 0 takes all cores.

    Raises:
        EncoderError: without ladybug; and, by any method, where the file is missing, damaged or not a store.
    """

    def __init__(self, path: str | Path, buffer_pool_size: int = 512 * 2**20, threads: int = 0) -> None:
        self.path = Path(path)
        self._buffer_pool_size, self._threads = buffer_pool_size, threads
        self._opened: tuple[Database, Connection] | None = None

    @property
    def where(self) -> str:
        """The file."""
        return str(self.path)

    def build(self, graph: KnowledgeGraph, progress: bool = False) -> None:
        """Put `graph` in place of the file; see `GraphStore`."""
        graph = checked(graph)
        self.close()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.is_dir():
            raise EncoderError(f"{self.path} is a folder; name a file for the store, such as {self.path / 'graph.db'}")
        with tempfile.TemporaryDirectory(dir=self.path.parent, prefix=f".{self.path.name}.") as beside:
            part = Path(beside) / "graph.db"
            database, connection = self._open(part, read_only=False)
            try:
                for statement in SCHEMA:
                    connection.execute(statement)
                for name, table in progress_bar(_tables(graph), desc="graph store", unit="table", disable=not progress):
                    connection.execute(f"COPY {name} FROM $rows", {"rows": table})
                connection.execute("CHECKPOINT")
            except RuntimeError as error:
                raise EncoderError(f"{self.path} cannot be built: {_said(error)}") from None
            finally:
                connection.close()
                database.close()
            # A log of writes that an earlier owner of the file left would be replayed onto the new one.
            self.path.with_name(self.path.name + ".wal").unlink(missing_ok=True)
            os.replace(part, self.path)

    def close(self) -> None:
        """Let go of the file."""
        if self._opened is not None:
            database, connection = self._opened
            connection.close()
            database.close()
            self._opened = None

    def _rows(self, query: str, parameters: Mapping[str, Any]) -> list[Sequence[Any]]:
        if self._opened is None:
            if not self.path.exists():
                raise EncoderError(f"{self.path} is missing; build the store there first")
            self._opened = self._open(self.path, read_only=True)
        try:
            result = self._opened[1].execute(query, dict(parameters))
            if isinstance(result, list):
                raise EncoderError("the query holds more than one statement; give one")
            rows: Any = result.get_all()
            return list(rows)
        except RuntimeError as error:
            if f"Table {ENTITY} does not exist" in str(error):
                raise self._not_built() from None
            raise EncoderError(f"{self.path} cannot answer: {_said(error)}") from None

    def _open(self, path: Path, *, read_only: bool) -> tuple[Database, Connection]:
        try:
            import ladybug
        except ImportError:
            raise EncoderError("the embedded graph store needs ladybug; pip install 'recloop[kg]'") from None
        try:
            database = ladybug.Database(
                path, read_only=read_only, buffer_pool_size=self._buffer_pool_size, max_num_threads=self._threads
            )
            return database, ladybug.Connection(database)
        except (RuntimeError, IndexError, MemoryError) as error:
            raise EncoderError(
                f"{self.path} cannot be opened as a graph store ({_said(error)}); build it anew, or name another file"
            ) from None


def _tables(graph: KnowledgeGraph) -> list[tuple[str, pa.Table]]:
    """The graph as the three tables of `SCHEMA`, the names before what refers to them."""
    names, kinds = pa.array(graph.entities, pa.string()), pa.array(graph.relations, pa.string())
    heads, relations, tails = (pa.array(column) for column in np.ascontiguousarray(graph.triples.T))
    triples = {"from": names.take(heads), "to": names.take(tails), "relation": kinds.take(relations)}
    return [
        (ENTITY, pa.table({"name": names, "row": np.arange(len(names))})),
        (RELATION, pa.table({"name": kinds, "row": np.arange(len(kinds))})),
        (TRIPLE, pa.table({**triples, "row": np.arange(len(heads)), "head": heads})),
    ]


def _said(error: Exception) -> str:
    """The first line of what the database says."""
    return (str(error).splitlines() or [type(error).__name__])[0]
