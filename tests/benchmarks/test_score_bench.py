"""The bench of `score`, as far as it goes without members."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="the extra `score` is not installed")
pytest.importorskip("fsspec", reason="the extra `score` is not installed")

from benchmarks.score.__main__ import main
from benchmarks.score.contenders import stream_rate, texts_of
from cascadebert_build.config.cascade_toml import config_from_file


def test_it_says_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", "cascade.toml"]) == 2
    assert "--glue DIR, or --quick" in capsys.readouterr().err


def test_its_texts_are_glue_or_the_held_out_rows(tmp_path: Path) -> None:
    (tmp_path / "rows.tsv").write_text("text\tlabel\ngood\t1\nbad\t0\n")
    (tmp_path / "cascade.toml").write_text(
        'labels = ["negative", "positive"]\n[[members]]\nname = "a"\ncheckpoint = "b"\n'
        '[data]\npath = "rows.tsv"\n'
    )
    config = config_from_file(tmp_path / "cascade.toml")
    assert texts_of(None, config) == ("good", "bad")
    (tmp_path / "SST-2").mkdir()
    (tmp_path / "SST-2" / "train.tsv").write_text("sentence\tlabel\na film\t1\n")
    assert texts_of(tmp_path, config) == ("a film",)


def test_a_stream_is_counted_after_its_first_requests() -> None:
    class Client:
        def classify_stream(self, texts: Iterable[str], **_: object) -> Iterator[str]:
            yield from texts

    rate = stream_rate(Client(), ["a"], 0.01)  # pyright: ignore[reportArgumentType]
    assert rate > 0
