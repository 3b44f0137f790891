"""How long triples take to import and how much memory, each import in a process of its own with its own peak."""

import gzip
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote

from rich.table import Table

from recloop.encoders.base.errors import RecloopError
from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.encoders.knowledge.sources import read_triples

_BASE = "http://example.org/"
_LABEL = "<http://www.w3.org/2000/01/rdf-schema#label>"
PEOPLE = f"""PREFIX p: <{_BASE}property/>
SELECT ?head ?relation ?tail WHERE {{ VALUES ?relation {{ p:director p:actor p:writer }} ?head ?relation ?tail }}"""
"""A query that selects the triples about people."""


def import_table(graph: KnowledgeGraph) -> Table:
    """Seconds and peak memory of reading `graph` back from a dump (plain, packed, by a query) and from a TSV file.

    A dump has a label for every entity besides its triples. The child also pays for starting Python and its imports,
    which is in the memory and not in the seconds.
    """
    with tempfile.TemporaryDirectory(prefix="recloop-import-") as name:
        folder = Path(name)
        dump, packed, tabs = folder / "films.nt", folder / "films.nt.gz", folder / "films.tsv"
        lines = write_ntriples(graph, dump)
        packed.write_bytes(gzip.compress(dump.read_bytes(), compresslevel=1))
        write_tsv(graph, tabs)
        table = Table("import", "seconds", "of the CPU", "peak MiB", "triples", title_justify="left")
        table.title = f"{lines:,} lines of N-Triples, {dump.stat().st_size / 2**20:.0f} MiB"
        for what, path, query in (
            ("N-Triples, all between entities", dump, None),
            ("N-Triples, gzip", packed, None),
            ("N-Triples, by a SPARQL query", dump, PEOPLE),
            ("tabs", tabs, None),
        ):
            cost = measured(path, query)
            table.add_row(what, f"{cost.seconds:.1f}", f"{cost.cpu:.1f}", f"{cost.peak:,.0f}", f"{cost.kept:,}")
    return table


@dataclass(frozen=True)
class ImportCost:
    """What one import cost: seconds on the clock and of the CPU, peak memory in MiB; and the distinct triples."""

    seconds: float
    cpu: float
    peak: float
    kept: int


def measured(path: Path, query: str | None) -> ImportCost:
    """One import in a process of its own."""
    code = "import sys; from recloop.experiments.bench.knowledge_import import child; child(*sys.argv[1:])"
    command = [sys.executable, "-c", code, str(path), *([query] if query else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise RecloopError(f"importing {path.name} failed: {reason[0]}")
    return ImportCost(**json.loads(done.stdout))


def child(path: str, query: str | None = None) -> None:
    """Import one file and print what it cost as JSON."""
    began, worked = time.perf_counter(), time.process_time()
    _, report = read_triples(Path(path), query=query)
    seconds, cpu = time.perf_counter() - began, time.process_time() - worked
    print(json.dumps(asdict(ImportCost(seconds, cpu, peak_mib(), report.kept))))


def write_ntriples(graph: KnowledgeGraph, path: Path) -> int:
    """Write a graph as a dump, `film:7` as an IRI with the label "film 7"; the number of lines."""
    entities = [f"<{_BASE}{quote(name.replace(':', '/'))}>" for name in graph.entities]
    relations = [f"<{_BASE}property/{quote(name)}>" for name in graph.relations]
    with path.open("w", encoding="utf-8") as file:
        for name, iri in zip(graph.entities, entities, strict=True):
            file.write(f'{iri} {_LABEL} "{name.replace(":", " ")}"@en .\n')
        for head, relation, tail in graph.triples.tolist():
            file.write(f"{entities[head]} {relations[relation]} {entities[tail]} .\n")
    return len(graph.entities) + len(graph.triples)


def write_tsv(graph: KnowledgeGraph, path: Path) -> None:
    """Write a graph as three columns with a header."""
    with path.open("w", encoding="utf-8") as file:
        file.write("head\trelation\ttail\n")
        for head, relation, tail in graph.triples.tolist():
            file.write(f"{graph.entities[head]}\t{graph.relations[relation]}\t{graph.entities[tail]}\n")


def peak_mib() -> float:
    """The most memory this process held.

    Linux' own count for it: `getrusage` of a child begins at what its parent held when it was started.
    """
    status = Path("/proc/self/status")
    if status.exists():
        peak = next((line for line in status.read_text().splitlines() if line.startswith("VmHWM")), None)
        if peak is not None:
            return int(peak.split()[1]) / 2**10
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak_bytes / (2**20 if sys.platform == "darwin" else 2**10)
