"""The gateway's page in a real headless Chromium, over a server whose answers are known."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.browser import CONTROL, Page, browser, chromium, new_page
from tests.support.gateways import running_gateway
from tests.unit.fake_triton import LABELS, POLICY, FakeTriton, expected

pytestmark = pytest.mark.skipif(
    chromium() is None, reason="there is no Chromium (Debian: chromium-headless-shell)"
)
KEY = "a-key-of-sixteen-and-more"
POINTS = {
    "balanced": {
        "thresholds": [0.7],
        "default": True,
        "promise": {"kind": "max_disagreement", "limit": 0.02, "confidence": 0.95},
        "exits": [0.75, 0.25],
        "speedup": 2.5,
    },
    "fast": {"thresholds": [0.6], "by_hand": True, "exits": [0.9, 0.1], "speedup": 4.0},
}
CURVE: dict[str, Any] = {
    "quality": "accuracy",
    "n": 400,
    "curve": [[0.2, 0.85], [0.3, 0.89], [0.5, 0.91], [1.2, 0.92]],
    "last": [1.0, 0.92],
    "points": {"balanced": [0.4, 0.905], "fast": [0.25, 0.88]},
}
# Texts that the first stage answers, and texts that it defers.
EASY = next(t for t in (f"good film {i}" for i in range(99)) if expected(t).exit_stage == 0)
HARD = next(t for t in (f"good film {i}" for i in range(99)) if expected(t).exit_stage == 1)
VISIBLE = "!document.getElementById('{}').hidden"


@pytest.fixture(scope="module")
def chrome() -> Iterator[str]:
    with browser() as address:
        yield address


@pytest.fixture(scope="module")
def server() -> Iterator[FakeTriton]:
    parameters = {
        "policy": POLICY,
        "labels": json.dumps(LABELS),
        "operating_points": json.dumps(POINTS),
        "cost_curve": json.dumps(CURVE),
    }
    with FakeTriton(parameters=parameters, max_batch_size=64) as running:
        yield running


@pytest.fixture(scope="module")
def address(server: FakeTriton) -> Iterator[str]:
    with running_gateway(url=server.url) as found:
        yield found


@pytest.fixture
def page(chrome: str, address: str) -> Iterator[Page]:
    with new_page(chrome) as tab:
        tab.size(1100, 900)
        tab.open(f"{address}/")
        tab.wait_for(VISIBLE.format("points"))
        yield tab
        assert not tab.faults
        outside = [url for url in tab.urls if not url.startswith((address, "data:"))]
        assert not outside, "the page loads nothing from another host"


def classify(page: Page, text: str) -> None:
    """Type a text with the keyboard, and wait for what comes of it."""
    page.evaluate("document.getElementById('text').value = ''")
    page.evaluate("document.getElementById('text').focus()")
    page.type(text)
    page.press("Enter", CONTROL)
    page.wait_for("document.getElementById('send').disabled === false")
    page.wait_for(" || ".join(VISIBLE.format(part) for part in ("one", "many", "error")))


def shown(page: Page, part: str) -> str:
    return str(page.evaluate(f"document.getElementById('{part}').innerText"))


def test_a_text_that_the_first_stage_answers(page: Page, server: FakeTriton) -> None:
    page.click("#text")
    page.type(EASY)
    page.click("#send")
    page.wait_for(VISIBLE.format("one"))
    text = shown(page, "one")
    confidence = expected(EASY).confidence
    assert "positive" in text
    assert "stage 0 answered" in text
    assert f"confidence {confidence:.4f}" in text
    # The second stage had no part in it, and is asked what it would say.
    assert server.requests[-1].parameters["stage"] == 1
    assert "not needed" in text
    # The bar is as long as the confidence, with a mark at the threshold.
    (bar, mark) = page.evaluate(
        "(() => { const b = document.querySelector('.stage.answered .bar');"
        " const w = b.getBoundingClientRect().width; return ["
        " b.querySelector('div').getBoundingClientRect().width / w,"
        " parseFloat(b.querySelector('i').style.left) / 100]; })()"
    )
    assert bar == pytest.approx(confidence, abs=0.01)
    assert mark == pytest.approx(0.5, abs=0.01)  # of the timeline


def test_where_the_time_went(page: Page) -> None:
    classify(page, HARD)
    text = shown(page, "one")
    assert "stage 1 answered" in text
    for part in ("tokenising 0.5 ms", "waiting 3.0 ms", "stage 0 4.0 ms", "stage 1 36 ms"):
        assert part in text
    assert "46 ms in the cascade" in text
    assert "2 other rows" in text
    parts = page.evaluate("document.querySelectorAll('.track > div').length")
    assert parts == 4


def test_a_hundred_lines_become_a_table_with_the_hard_ones_first(page: Page) -> None:
    texts = [f"line {i}" for i in range(100)]
    classify(page, "\n".join(texts))
    rows = page.evaluate(
        "[...document.querySelectorAll('#rows tr')].map(r => [...r.cells].map(c => c.innerText))"
    )
    assert sorted(row[3] for row in rows) == sorted(texts)
    order = sorted(texts, key=lambda t: (-expected(t).exit_stage, expected(t).confidence))
    assert [row[3] for row in rows] == order
    deferred = sum(expected(t).exit_stage for t in texts)
    assert f"{deferred} at stage 1 ({deferred}.0%)" in shown(page, "many")
    # A row leads to its explanation.
    page.evaluate("document.querySelector('#rows button').focus()")
    page.press("Enter")
    page.wait_for(VISIBLE.format("one"))
    assert f"{expected(order[0]).confidence:.4f}" in shown(page, "one")


def test_what_the_operating_points_promise(page: Page, server: FakeTriton) -> None:
    text = shown(page, "points")
    assert "at most 2%" in text
    assert "95% confidence" in text
    assert "guarantees nothing" in text
    assert "25.0% of the held-out rows deferred" in text
    assert "accuracy over all thresholds, on 400 held-out rows" in text
    assert page.evaluate("document.querySelectorAll('svg .point').length") == 2
    line = page.evaluate("document.querySelector('svg .curve').getAttribute('points')")
    assert len(line.split()) == len(CURVE["curve"])
    page.evaluate("document.getElementById('point').value = 'fast'")
    classify(page, EASY)
    asked = [r for r in server.requests if r.texts == (EASY,) and "stage" not in r.parameters]
    assert asked[-1].parameters["operating_point"] == "fast"


def test_errors_are_seen(page: Page, server: FakeTriton) -> None:
    classify(page, "  ")
    assert "There is no text" in shown(page, "error")
    classify(page, "explode")
    assert "the server failed" in shown(page, "error")
    classify(page, EASY)
    assert page.evaluate("document.getElementById('error').hidden"), "the next answer removes it"
    # The browser notes failed calls in its console.
    page.faults.clear()


def test_a_dead_server_and_a_dead_gateway_are_seen(chrome: str) -> None:
    with running_gateway(url="127.0.0.1:1") as address, new_page(chrome) as page:
        page.open(f"{address}/")
        page.wait_for(VISIBLE.format("error"))
        classify(page, EASY)
        assert "no server answers" in shown(page, "error")
        # As if the gateway were gone.
        page.call("Network.emulateNetworkConditions", offline=True, latency=0,
                  downloadThroughput=-1, uploadThroughput=-1)  # fmt: skip
        classify(page, EASY)
        assert "The gateway does not answer" in shown(page, "error")


def test_markup_in_a_text_stays_text(page: Page) -> None:
    evil = "<img src=x onerror=document.title='broken'> <b>good</b>"
    classify(page, evil)
    classify(page, f"{evil}\nanother line")
    assert evil in shown(page, "many")
    assert page.evaluate("document.title") == "CascadeBERT playground"


def test_a_key_is_asked_for(chrome: str, server: FakeTriton) -> None:
    with running_gateway(url=server.url, keys=(KEY,)) as address, new_page(chrome) as page:
        page.open(f"{address}/")
        page.wait_for(VISIBLE.format("key-field"))
        page.evaluate("document.getElementById('key').focus()")
        page.type(KEY)
        classify(page, EASY)
        assert "stage 0 answered" in shown(page, "one")


def test_a_keyboard_is_enough(page: Page) -> None:
    """The text has the focus at the start; Tab leads to the operating points and the button."""
    page.type(EASY)
    visited: list[str] = []
    while "send" not in visited:
        page.press("Tab")
        visited.append(page.evaluate("document.activeElement.id"))
        assert len(visited) < 5
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", "one sees where the focus is"
    assert visited == ["point", "send"]
    page.press("Enter")
    page.wait_for(VISIBLE.format("one"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_in_light_and_in_the_dark(page: Page, scheme: str) -> None:
    page.scheme(scheme)
    classify(page, HARD)
    # The ratio of WCAG between each text and what is behind it.
    worst = page.evaluate(
        """(() => {
          const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
          const rgb = (color) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color;
            canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data]; };
          const light = (color) => { const [r, g, b] = rgb(color).map((v) => { v /= 255;
            return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; });
            return .2126 * r + .7152 * g + .0722 * b; };
          const behind = (e) => { for (; e; e = e.parentElement) {
            const color = getComputedStyle(e).backgroundColor; if (rgb(color)[3]) return color; } };
          const texts = [...document.querySelectorAll("body *")].filter((e) => e.checkVisibility()
            && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())
            && !["OPTION", "SCRIPT", "STYLE"].includes(e.tagName));
          return Math.min(...texts.map((e) => {
            const style = getComputedStyle(e), svg = e instanceof SVGElement;
            const [a, b] = [light(svg ? style.fill : style.color), light(behind(e))].sort();
            return (Math.max(a, b) + .05) / (Math.min(a, b) + .05); }));
        })()"""
    )
    assert worst >= 4.5
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 27)"
    assert dark == (scheme == "dark")


@pytest.mark.parametrize("width", [320, 390])
def test_it_fits_on_a_phone(page: Page, width: int) -> None:
    page.size(width, 780, phone=True)
    for text in (HARD, "\n".join(f"a longer line that has to wrap {i}" for i in range(5))):
        classify(page, text)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    small = page.evaluate(
        "[...document.querySelectorAll('#send, #point')]"
        ".map(e => e.getBoundingClientRect().height).filter(h => h < 36)"
    )
    assert not small, "a finger needs room"


def test_the_documentation_loads_nothing_from_outside(chrome: str, address: str) -> None:
    with new_page(chrome) as page:
        page.open(f"{address}/docs")
        page.wait_for("document.body.innerText.includes('/classify/stream')")
        assert page.urls
        assert all(url.startswith((address, "data:")) for url in page.urls), page.urls
