"""Graph databases behind one contract: build a store from a graph, ask for neighbourhoods and paths, read it out."""

from recloop.encoders.knowledge.stores.contract import GraphPath, GraphStore
from recloop.encoders.knowledge.stores.cypher import CypherStore
from recloop.encoders.knowledge.stores.ladybug_store import LadybugStore
from recloop.encoders.knowledge.stores.memory import MemoryStore
from recloop.encoders.knowledge.stores.neo4j_store import Neo4jStore
from recloop.encoders.knowledge.stores.places import open_store, without_password

__all__ = [
    "CypherStore",
    "GraphPath",
    "GraphStore",
    "LadybugStore",
    "MemoryStore",
    "Neo4jStore",
    "open_store",
    "without_password",
]
