import csv
import os
from pathlib import Path

import pytest

from recloop.encoders.base.errors import LogError
from recloop.experiments.studies.knowledge_embeddings import COLUMNS, KnowledgeEmbeddingsConfig, Tally, main, write_rows


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Thirty films by three directors, each of whom keeps to one genre."""
    films = [f"film {i:02d}" for i in range(30)]
    triples = [(film, "by", f"director {i % 3}") for i, film in enumerate(films)]
    triples += [(film, "of kind", f"genre {i % 3}") for i, film in enumerate(films)]
    triples += [(film, "said in", "English") for film in films]
    folder = tmp_path / "films"
    folder.mkdir()
    header = "head_id:token\trelation_id:token\ttail_id:token"
    (folder / "films.kg").write_text("\n".join([header, *("\t".join(triple) for triple in triples)]) + "\n")
    (folder / "films.link").write_text(
        "item_id:token\tentity_id:token\n" + "".join(f"{i}\t{film}\n" for i, film in enumerate(films))
    )
    (folder / "films.inter").write_text(
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
        + "".join(f"u{u}\t{i}\t4\t{100 * u + i}\n" for u in range(3) for i in range(30))
    )
    return folder


def test_the_table_of_a_small_graph(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = log.parent / "out.csv"
    write_rows(out, "other", {("transe", "head", "mrr"): (0.5, 1)})
    config = KnowledgeEmbeddingsConfig(
        "films", log.parent, out, models=("distmult",), dim=8, epochs=100, seeds=2, progress=False
    )
    means = main(config)
    assert means["distmult", "tail", "mrr"][0] > means["random", "tail", "mrr"][0]
    both = (means["distmult", "head", "mrr"][0] + means["distmult", "tail", "mrr"][0]) / 2
    assert means["distmult", "both", "mrr"] == (pytest.approx(both), 2)
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert rows[0]["data"] == "other"  # the rows of another log stay
    assert {row["side"] for row in rows if row["model"] == "frequency"} >= {"head", "tail", "both"}
    assert "frequency" in capsys.readouterr().out
    main(config)
    with out.open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(rows)


def test_what_was_not_held_out_leaves_no_row() -> None:
    tally = Tally()
    tally.add("transe", "spouse", {"mrr": float("nan")})
    tally.add("transe", "both", {"mrr": 0.25})
    assert tally.means() == {("transe", "both", "mrr"): (0.25, 1)}


def test_a_log_without_a_graph_is_named(log: Path) -> None:
    (log / "films.kg").unlink()
    (log / "films.link").unlink()
    with pytest.raises(LogError, match="has no knowledge graph"):
        main(KnowledgeEmbeddingsConfig("films", log.parent, log.parent / "out.csv"))


@pytest.mark.slow
@pytest.mark.skipif("RECLOOP_DATA" not in os.environ, reason="RECLOOP_DATA is not set")
def test_products_beat_frequency_on_real_heads(tmp_path: Path) -> None:
    config = KnowledgeEmbeddingsConfig(
        "ml-100k", Path(os.environ["RECLOOP_DATA"]), tmp_path / "out.csv", ("distmult",), seeds=1, progress=False
    )
    means = main(config)
    assert means["distmult", "both", "mrr"][0] > means["frequency", "both", "mrr"][0]
    assert means["distmult", "head", "mrr"][0] > 5 * means["frequency", "head", "mrr"][0]
