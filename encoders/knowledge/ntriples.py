"""N-Triples dumps (Wikidata, DBpedia) by pyoxigraph, in bounded memory, with a SPARQL query that selects."""

from __future__ import annotations

import bz2
import gzip
import os
import re
import tempfile
import zlib
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, cast
from urllib.parse import unquote

import numpy as np

from recloop.encoders.base.errors import EncoderError
from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.encoders.knowledge.triple_report import BadLines, OnBadLines, TripleReport

if TYPE_CHECKING:
    from pyoxigraph import Quad

DUMPS = (".nt", ".nt.gz", ".nt.bz2")
Literals = Literal["none", "years", "all"]
_LABEL = "http://www.w3.org/2000/01/rdf-schema#label"
_WIKIDATA_PROPERTY = re.compile(r"^http://www\.wikidata\.org/prop/direct/(P\d+)$")
_DATES = tuple(f"http://www.w3.org/2001/XMLSchema#{kind}" for kind in ("date", "dateTime", "gYear", "gYearMonth"))
_YEAR = re.compile(r"^-?\d{4,}")
_VARIABLES = ("head", "relation", "tail")
_LINES = 4_096
"""Lines that are parsed at once: what a broken one makes us read line by line."""


def read_ntriples(
    path: Path,
    query: str | None = None,
    *,
    labels: str | None = "en",
    literals: Literals = "none",
    on_bad_lines: OnBadLines = "error",
) -> tuple[KnowledgeGraph, TripleReport]:
    """Read an N-Triples dump, each triple once.

    Without a query the file is streamed once: only distinct names and three numbers a triple are held. With one, the
    file goes into a store on disk in a temporary folder first, and what the query sorts or joins counts as well.

    Names: an entity is its `rdfs:label` in the language `labels`, else the last part of its IRI, as a relation is
    (a direct property of Wikidata reads the label of the property). Names that two IRIs share carry the IRI behind.

    Args:
        path: `.nt`, `.nt.gz` or `.nt.bz2`.
        query: SPARQL: a SELECT of ?head ?relation ?tail, or a CONSTRUCT; None takes every triple between IRIs.
        labels: a language tag; labels without a language count as well. None names all by IRI, and then labels are
            literals like any others.
        literals: without a query, literal objects that become entities too: dates as their `years`, or `all`. A query
            has those it asks for, dates as their years.
        on_bad_lines: `error` raises at the first line that is no triple, `skip` leaves it out and counts it.

    Raises:
        EncoderError: without pyoxigraph; a query that is broken or lacks the variables; a broken line (file and line);
            a damaged archive; no triple left.
    """
    _oxigraph()
    bad = BadLines(on_bad_lines)
    names = _Names(labels)
    if query is None:
        _stream(_quads(path, bad), names, literals)
    else:
        _checked(query)
        with tempfile.TemporaryDirectory(prefix="recloop-triples-") as folder:
            _select(_quads(path, bad), query, names, folder)
    return bad.closed(path, names.graph(), names.passed_over)


class _Names:
    """IRIs and literals as numbers, triples of them, and the labels met on the way."""

    def __init__(self, language: str | None) -> None:
        self.language = language
        self.entities: dict[str, int] = {}
        self.relations: dict[str, int] = {}
        self.labels: dict[str, str] = {}
        self.triples = array("q")
        self.passed_over = 0

    def add(self, head: str, relation: str, tail: str) -> None:
        entities, relations = self.entities, self.relations
        self.triples.append(entities.setdefault(head, len(entities)))
        self.triples.append(relations.setdefault(relation, len(relations)))
        self.triples.append(entities.setdefault(tail, len(entities)))

    def graph(self) -> KnowledgeGraph:
        codes = np.array(self.triples, dtype=np.int64).reshape(-1, 3)
        return KnowledgeGraph.from_codes(self._apart(self.entities), self._apart(self.relations), codes)

    def _apart(self, iris: dict[str, int]) -> list[str]:
        """A name for each, no two alike."""
        plain = [self._name(iri) for iri in iris]
        times = Counter(plain)
        return [
            name if times[name] == 1 else f"{name} <{iri}>" if not iri.startswith('"') else f'"{name}"'
            for iri, name in zip(iris, plain, strict=True)
        ]

    def _name(self, iri: str) -> str:
        if iri.startswith('"'):
            return iri[1:]
        return self.labels.get(_labelled(iri)) or local_name(iri)


def local_name(iri: str) -> str:
    """What stands behind the last `#` or `/` of an IRI, percent signs decoded; the IRI where nothing does.

    >>> local_name("http://dbpedia.org/resource/Am%C3%A9lie"), local_name("http://schema.org/")
    ('Amélie', 'http://schema.org/')
    """
    return unquote(re.split(r"[#/]", iri)[-1]) or iri


def _labelled(iri: str) -> str:
    """The IRI that carries the label of this one: Wikidata labels a property, not its direct form."""
    return _WIKIDATA_PROPERTY.sub(r"http://www.wikidata.org/entity/\1", iri)


def query_text(query: str | None) -> str | None:
    """A query as the command line takes it: the text itself (SPARQL, Cypher), or the path of a file that holds it."""
    if query is None or (not os.path.isfile(query) and any(mark in query for mark in "{(")):
        return query
    try:
        return Path(query).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise EncoderError(f"'{query}' is neither a query nor a file that holds one; check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise EncoderError(f"{query} cannot be read as a query ({_one_line(error)})") from None


def _oxigraph() -> None:
    try:
        import pyoxigraph  # noqa: F401
    except ImportError:
        raise EncoderError("N-Triples dumps need pyoxigraph; pip install 'recloop[kg]'") from None


def _quads(path: Path, bad: BadLines) -> Iterator[Quad]:
    """Every triple of a dump, as many lines at once as `_LINES`."""
    from pyoxigraph import RdfFormat, parse

    line = 1
    try:
        with _opened(path) as file:
            while block := list(islice(file, _LINES)):
                try:
                    yield from list(parse(b"".join(block), RdfFormat.N_TRIPLES))
                except SyntaxError:
                    yield from _line_by_line(path, block, line, bad)
                line += len(block)
    except (OSError, EOFError, zlib.error) as error:
        raise EncoderError(f"{path} cannot be read after line {line - 1} ({error}); get the file anew") from None


def _line_by_line(path: Path, block: list[bytes], first: int, bad: BadLines) -> Iterator[Quad]:
    """The triples of a block with a broken line: each line alone, so that none takes its neighbours with it."""
    from pyoxigraph import RdfFormat, parse

    for line, text in enumerate(block, start=first):
        try:
            yield from list(parse(text, RdfFormat.N_TRIPLES))
        except SyntaxError as error:
            problem = re.sub(r"^Parser error at line \d+ |\.?$", "", _one_line(error))
            bad.meet(f"{path}, line {line}, {problem}")


def _opened(path: Path) -> IO[bytes]:
    packed = path.suffix.lower()
    if packed == ".gz":
        return cast(IO[bytes], gzip.open(path, "rb"))
    return cast(IO[bytes], bz2.open(path, "rb")) if packed == ".bz2" else path.open("rb")


def _stream(quads: Iterable[Quad], names: _Names, literals: Literals) -> None:
    from pyoxigraph import NamedNode

    for quad in quads:
        head, tail = quad.subject, quad.object
        name = tail.value if isinstance(tail, NamedNode) else _literal(tail, literals)
        labelled = _label(quad, names)
        if not isinstance(head, NamedNode) or name is None or labelled:
            names.passed_over += 1
        else:
            names.add(head.value, quad.predicate.value, name)


def _select(quads: Iterable[Quad], query: str, names: _Names, folder: str) -> None:
    """The answers of a query over a store on disk."""
    from pyoxigraph import NamedNode, Store, Triple

    store = Store(folder)
    store.bulk_extend(quads)
    answers = cast(Any, store.query(query))
    called = [variable.value for variable in getattr(answers, "variables", ())]
    # By place: looking a variable up by its name costs more than the rest of the loop.
    places = [called.index(name) for name in _VARIABLES] if called else []
    for answer in answers:
        triple = isinstance(answer, Triple)
        cells = (answer.subject, answer.predicate, answer.object) if triple else [answer[place] for place in places]
        head, relation, tail = (cell.value if isinstance(cell, NamedNode) else _literal(cell, "all") for cell in cells)
        if head is None or relation is None or tail is None:
            names.passed_over += 1
        else:
            names.add(head, relation, tail)
    wanted = {*names.entities, *map(_labelled, names.relations)}
    for quad in store.quads_for_pattern(None, NamedNode(_LABEL), None):
        if isinstance(quad.subject, NamedNode) and quad.subject.value in wanted:
            _label(quad, names)


def _literal(term: object, literals: Literals) -> str | None:
    """A literal as a key that no IRI has, a date as its year; None for one that is not asked for, and blank nodes."""
    from pyoxigraph import Literal as RdfLiteral

    if not isinstance(term, RdfLiteral) or literals == "none":
        return None
    year = _YEAR.match(term.value) if term.datatype.value in _DATES else None
    if year is not None:
        return f'"{year[0]}'
    return f'"{term.value}' if literals == "all" else None


def _label(quad: Quad, names: _Names) -> bool:
    """Whether the triple says what its subject is called; if so and in the right language, that is noted."""
    from pyoxigraph import Literal as RdfLiteral
    from pyoxigraph import NamedNode

    called = quad.object
    if names.language is None or quad.predicate.value != _LABEL or not isinstance(called, RdfLiteral):
        return False
    if isinstance(quad.subject, NamedNode) and called.value.strip():
        if called.language is None:
            names.labels.setdefault(quad.subject.value, called.value)
        elif called.language.split("-")[0] == names.language:
            names.labels[quad.subject.value] = called.value
    return True


def _checked(query: str) -> None:
    """`EncoderError` for a query that cannot give triples, before anything is read."""
    from pyoxigraph import QueryBoolean, QuerySolutions, Store

    try:
        answers = Store().query(query)
    except (SyntaxError, ValueError, RuntimeError, OSError) as error:
        raise EncoderError(f"the SPARQL query is broken ({_one_line(error)[:200]}); mend the query") from None
    if isinstance(answers, QueryBoolean):
        raise EncoderError("the SPARQL query is an ASK; give a SELECT ?head ?relation ?tail, or a CONSTRUCT")
    if isinstance(answers, QuerySolutions):
        there = [variable.value for variable in answers.variables]
        missing = [f"?{name}" for name in _VARIABLES if name not in there]
        if missing:
            given = ", ".join(f"?{name}" for name in there)
            raise EncoderError(f"the SPARQL query selects {given} and lacks {', '.join(missing)}; select all three")


def _one_line(error: Exception) -> str:
    return " ".join(str(getattr(error, "msg", None) or error).split())
