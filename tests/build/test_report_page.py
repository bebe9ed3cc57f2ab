"""The evaluation's page, read with an HTML parser."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from cascadebert_build.cli import main
from cascadebert_build.report import (
    EarlyExitCurve,
    Material,
    MemberSource,
    Provenance,
    page_from_material,
)
from cascadebert_build.report.answers import NO_ANSWER
from cascadebert_build.report.examples import example_at
from tests.support.material import make_material
from tests.support.serving import Built

NASTY = '<script>alert("1")</script> & \'<img src="http://evil.example/x" onerror=alert(1)>'


def make_provenance(material: Material, **changes: Any) -> Provenance:
    fields: dict[str, Any] = {
        "cascade": "demo",
        "policy_id": "ab" * 32,
        "method": "on held-out rows",
        "data": "rows.tsv",
        "rows": len(material.texts),
        "data_sha256": "cd" * 32,
        "chosen_on_these_rows": True,
        "runtime": "onnxruntime, fp32, cpu",
        "members": tuple(
            MemberSource(name, f"org/{name}", (("model.onnx", "ef" * 32),), 1000, 1.0)
            for name in material.names
        ),
        "versions": (("Python", "3.11"),),
        "date": "2030-01-02 03:04 UTC",
    }
    return Provenance(**{**fields, **changes})


def page_of(material: Material, **changes: Any) -> str:
    return page_from_material(material, make_provenance(material, **changes))


class Page(HTMLParser):
    """What a browser would make of a page: its tags, its ids, what they point at, its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[tuple[str, str]] = []
        self.handlers: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in {"meta", "br", "link", "img"}:
            self._open.append(tag)
        for name, value in attrs:
            self.handlers += [name] if name.startswith("on") else []
            self.ids += [value or ""] if name == "id" else []
            if name in {"src", "href", "xlink:href", "action", "data", "srcset", "poster"}:
                self.links.append((name, value or ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] != ["style"]:
            self.text += data


def assert_stands_alone(html: str) -> Page:
    """Nothing is fetched, nothing is run, and no id stands twice."""
    page = Page(html)
    assert not {"script", "link", "img", "iframe", "object", "embed", "base"} & set(page.tags)
    assert not page.handlers
    assert all(value.startswith("#") for _, value in page.links)
    assert len(page.ids) == len(set(page.ids))
    targets = [value[1:] for _, value in page.links] + re.findall(r"url\(#([^)]*)\)", html)
    assert targets
    assert set(targets) <= set(page.ids)
    assert set(re.findall(r"url\((.)", html)) <= {"#"}
    assert "@import" not in html
    # What is left are names of namespaces, and texts, which are escaped.
    markup = re.sub(r'xmlns(:xlink)?="[^"]*"', "", html)
    assert not re.search(r'=\s*["\']?\s*(https?:)?//', markup)
    assert "default-src 'none'" in html
    return page


@pytest.fixture(scope="module")
def two_stages() -> Material:
    return make_material(0.8)


def test_the_page_stands_alone(two_stages: Material) -> None:
    curves = (EarlyExitCurve("PABEE", (0.3, 0.9), (0.6, 0.8)),)
    page = assert_stands_alone(page_of(replace(two_stages, early_exit=curves)))
    assert page.tags.count("figure") == 6  # two of trade, and two for each of the two members
    assert "PABEE" in page.text
    assert two_stages.assessment is not None
    for verdict in two_stages.assessment.verdicts:
        assert verdict.text in page.text
    for word in ("demo: evaluation", "300 rows of rows.tsv", "tuned on these very rows"):
        assert word in page.text
    assert f"{two_stages.evaluation.cascade_accuracy:.2%}" in page.text


@pytest.mark.parametrize(
    ("kwargs", "thresholds", "figures"),
    [
        ({"labelled": False}, (0.8,), 4),
        ({}, (), 2),
        ({"labelled": False}, (), 1),
        ({"labels": ("a", "b", "c", "d")}, (0.7, 0.6), 8),
        ({"pair": True}, (0.8,), 6),
        ({"nan_rows": (0, 5)}, (0.8,), 6),
        ({"nan_rows": range(300), "labelled": False}, (0.8,), 2),
        ({"n": 1}, (0.8,), 6),
        ({"signal": "margin"}, (0.8,), 6),
        ({"used": (0.0,)}, (0.8,), 6),
        ({"used": (1.0,)}, (0.8,), 6),
    ],
    ids=[
        "no labels", "one member", "one member without labels", "three stages, four labels",
        "pairs", "NaN rows", "nothing but NaN", "one row", "another signal", "nothing deferred",
        "all deferred",
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("error::RuntimeWarning:cascadebert_build.report")
def test_every_kind_of_cascade_has_a_page(
    kwargs: dict[str, Any], thresholds: tuple[float, ...], figures: int
) -> None:
    page = assert_stands_alone(page_of(make_material(*thresholds, **kwargs)))
    assert page.tags.count("figure") == figures
    assert "nan" not in page.text.lower().split()


def test_what_comes_from_data_is_text() -> None:
    labels = ("<b>bad</b>", "\"good\" 'label'")
    curves = (EarlyExitCurve("<i>$x_1$</i> --> &", (0.3,), (0.6,)),)
    material = make_material(0.8, text=NASTY, labels=labels, pair=True, early_exit=curves)
    page = assert_stands_alone(page_of(material, cascade="c", data=NASTY, method=NASTY))
    assert page.text.count(NASTY) > 10
    assert labels[0] in page.text
    assert labels[1] in page.text
    assert curves[0].name in page.text
    assert "i" not in page.tags


def test_texts_are_cut_and_unprintable_characters_shown() -> None:
    material = make_material(0.8, text="\ud800\x00\x1b" + "long " * 200)
    html = page_of(material)
    html.encode("utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f]", html)
    assert "…" in html
    assert "long " * 60 not in html


def test_the_same_material_gives_the_same_page(two_stages: Material) -> None:
    page = page_of(two_stages)
    assert page_of(make_material(0.8)) == page
    later = page_of(two_stages, date="another day")
    assert later.replace("another day", "2030-01-02 03:04 UTC") == page


def test_rows_without_an_answer_are_wrong_and_shown_as_such() -> None:
    material = make_material(0.8, nan_rows=(7,))
    assert material.exit_stage[7] == NO_ANSWER
    assert not material.right[7].any()
    example = example_at(7, material)
    assert example.answers == (None, None)
    assert "Without an answer" in page_of(material)


def test_thresholds_given_by_hand_are_called_so(two_stages: Material) -> None:
    html = page_of(make_material(0.8, used=(0.6,)))
    assert "Thresholds given by hand (0.6000)" in html
    assert "tuned on these very rows" not in html
    assert "tuned on these very rows" not in page_of(two_stages, chosen_on_these_rows=False)


def test_the_command_writes_a_page_without_paths(built: Built, tmp_path: Path) -> None:
    config, page = built.steps.config, tmp_path / "out" / "report.html"
    curves = tmp_path / "curves.json"
    points = [{"cost": 0.3, "accuracy": 0.8}]
    curves.write_text(json.dumps({"curves": [{"name": "PABEE", "points": points}]}))
    arguments = ["evaluate", str(config.folder), "--all-rows", "--report", str(page)]
    assert main([*arguments, "--early-exit", str(curves)]) == 0
    html = page.read_text(encoding="utf-8")
    parsed = assert_stands_alone(html)
    assert str(tmp_path) not in html
    assert str(config.folder) not in html
    for part in (built.policy.id, built.steps.rows.sha256(), "rows.tsv", "PABEE", "small alone"):
        assert part in parsed.text
    for member in config.members:
        assert built.steps.exported(member).manifest.onnx_sha256 in parsed.text
    # What the user called the data is what the page calls it.
    given = str(config.folder / "rows.tsv")
    assert main([*arguments, "--data", given, "--threshold", "0.7"]) == 0
    html = page.read_text(encoding="utf-8")
    assert f"100 rows of {given}" in html
    assert "given by hand" in html
