"""The demo's members read over topics, and its result is a table and a picture."""

from __future__ import annotations

from pathlib import Path

from cascadebert_build.demo.corpus import corpus_from_seed
from cascadebert_build.demo.measurement import Measured
from cascadebert_build.demo.members import vocabulary_of_rows
from cascadebert_build.demo.picture import save_picture
from cascadebert_build.demo.run import DemoResult

CORPUS = corpus_from_seed(3, train_rows=4000, validation_rows=200, test_rows=200)


def test_the_vocabulary_names_no_topic_of_any_split() -> None:
    words = set(vocabulary_of_rows(CORPUS.train))
    assert {"not", "the", "but", "good"} <= words
    for row in (*CORPUS.train, *CORPUS.test):
        for topic in row.topics:
            assert topic.lower() not in words


def test_the_result_reads_as_a_table_and_a_picture(tmp_path: Path) -> None:
    measured = (
        Measured("small", 0.8, (4, 0), 100.0, ((1.0, 2.0), ())),
        Measured("large", 0.9, (0, 4), 50.0, ((), (4.0, 5.0))),
        Measured("cascade", 0.9, (3, 1), 75.0, ((1.0, 2.0, 3.0), (6.0,))),
    )
    save_picture(tmp_path / "demo.png", measured, [(0.0, 0.8), (1.0, 0.9)], title="t")
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
    text = str(DemoResult("rows", 4, (0.9,), measured, 0.975, tmp_path / "demo.png"))
    assert "25.0%" in text
    assert "97.5% of the rows" in text
    assert "1.5 times as many" in text
    assert "3 + 1" in text
