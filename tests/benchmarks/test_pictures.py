"""The plots of the bench's report as files beside its summary."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.suite.page import summary_of_run
from benchmarks.suite.results import Figures
from benchmarks.suite.svg_files import write_pictures
from tests.benchmarks.test_bench_report import RUN
from tests.support.bench_rows import whole_run

_SVG = "{http://www.w3.org/2000/svg}"


def test_every_picture_of_the_summary_is_a_file_that_stands_alone(tmp_path: Path):
    figures = Figures(whole_run("minilm/short"))
    write_pictures(figures, tmp_path)
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.svg"))
    named = re.findall(r"!\[[^]]+\]\(([^)]+)\)", summary_of_run(RUN, figures))
    assert files == sorted(set(named))
    assert len(named) == len(files) >= 4
    for name in files:
        picture = ElementTree.parse(tmp_path / name).getroot()
        assert picture.tag == f"{_SVG}svg"
        outer, inner = (
            [float(n) for n in of.attrib["viewBox"].split()[2:]]
            for of in (picture, _drawing(picture))
        )
        assert outer[0] > inner[0]
        assert outer[1] > inner[1]


def test_the_key_stays_within_the_picture(tmp_path: Path):
    write_pictures(Figures(whole_run("minilm/short")), tmp_path)
    picture = ElementTree.parse(tmp_path / "plots" / "latency-minilm-short.svg").getroot()
    width, height = (float(n) for n in picture.attrib["viewBox"].split()[2:])
    places = [
        tuple(float(n) for n in re.findall(r"[0-9.]+", of.attrib["transform"]))
        for of in picture.findall(f"{_SVG}g")
    ]
    assert len(set(places)) == len(places) > 3
    for x, y in places:
        assert 0 <= x < width
        assert 0 <= y < height


def _drawing(picture: ElementTree.Element) -> ElementTree.Element:
    drawing = picture.find(f"{_SVG}svg")
    assert drawing is not None
    return drawing
