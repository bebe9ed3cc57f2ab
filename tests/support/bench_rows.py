"""Rows of a bench that nobody ran, with the fields of real ones."""

from __future__ import annotations

from typing import Any

from benchmarks.tools.perf_analyzer import Load

Row = dict[str, Any]
SHARES = (0.0, 0.25, 1.0)


def row(
    section: str, scene: str, contender: str, load: Load | None = None, *, repeat: int = 0,
    **figures: Any,
) -> Row:  # fmt: skip
    """One row."""
    found: Row = {
        "section": section, "scene": scene, "contender": contender,
        "load": "" if load is None else str(load), "repeat": repeat, "settings": "as it comes",
    }  # fmt: skip
    if load is not None:
        found["of_load"] = {
            "concurrency": load.concurrency, "rows": load.rows, "rate_rps": load.rate_rps,
        }  # fmt: skip
    return found | figures


def latency(p50_ms: float) -> dict[str, float]:
    """Of some requests."""
    return {"requests": 9, "p50_ms": p50_ms, "p99_ms": 3 * p50_ms}


def window(
    section: str, scene: str, contender: str, load: Load, rate_rps: float, *, repeat: int = 0,
    **figures: Any,
) -> Row:  # fmt: skip
    """A contender under load."""
    ms = 1000 / rate_rps
    usual: Row = {
        "throughput_rps": rate_rps, "all": latency(ms), "exited": latency(ms),
        "deferred": latency(2 * ms), "deferred_share": 0.25, "server_cpu_ms": 1.5,
        "client_cpu_ms": 0.5, "others_cores": 0.01, "policy": "0123456789abcdef", "run_s": 10.0,
        "stages": {
            "small": {"calls": 100, "rows_per_call": 8.0, "busy": 0.75, "instances": 2},
        },
    }  # fmt: skip
    return row(section, scene, contender, load, repeat=repeat, **(usual | figures))


def limit_row(
    scene: str, share: float, *, rows_per_s: float = 100.0, expected: float = 2.0, repeat: int = 0,
    **figures: Any,
) -> Row:  # fmt: skip
    """The limit at a share of deferred rows."""
    usual: Row = {
        "rows_per_s": rows_per_s, "promised_speedup": expected, "row_ms": [1.0, 5.0],
        "computed_over_measured": 1.01, "settings": "2 processes of 1 thread",
    }  # fmt: skip
    name = f"cascade, {share:.0%} deferred"
    return row("limit", scene, name, repeat=repeat, **(usual | figures))


def timed_limit(*lengths: int, tried: dict[str, float], alone: float = 1.0) -> Row:
    """What a limit keeps of its small stage: two processes, buckets of equal shares but the last.

    Args:
        lengths: of the buckets; the last one has twice the rows of another.
        tried: rows a second of both processes, by batch size, in all buckets.
        alone: time of a row in a process that is alone, over its time with both busy.
    """
    shares = [1 / (len(lengths) + 1)] * len(lengths)
    shares[-1] *= 2
    buckets = [
        {
            "length": length, "share": share, "tried": tried, "best_batch": 1, "row_ms": 1.0,
            "row_alone_ms": alone,
        }
        for length, share in zip(lengths, shares, strict=True)
    ]  # fmt: skip
    return {"processes": 2, "stages": [{"model": "small", "share": 1.0, "buckets": buckets}]}


def whole_run(*scenes: str, repeats: int = 2) -> list[Row]:
    """Rows of all sections."""
    found: list[Row] = []
    for scene in scenes:
        for repeat in range(repeats):
            found += _loads(scene, repeat) + _costs(scene, repeat) + _sweeps(scene, repeat)
        found += _once(scene)
    return found


def _loads(scene: str, repeat: int) -> list[Row]:
    found: list[Row] = []
    rates = {"cascade": 80.0, "blocking": 75.0, "small alone": 160.0, "large alone": 40.0}
    for concurrency in (1, 8, 32):
        load = Load(concurrency)
        for name, rate in (rates | {"mosec": 70.0, "LitServe": 40.0}).items():
            grown = rate * (1 - 0.5 / concurrency) + repeat
            found.append(window("closed", scene, name, load, grown, repeat=repeat))
        bare = row("closed", scene, "client-side cascade", load, repeat=repeat)
        found.append(bare | {"throughput_rps": 30.0, "exited": latency(9.0)})  # an old row
    for name in ("cascade", "blocking", "small alone"):
        load = Load(1, rate_rps=40.0)
        sent = {"asked_rps": 40.0, "achieved_rps": 39.8}
        found.append(window("open", scene, name, load, 39.8, repeat=repeat, **sent))
    for name, rate in (("cascade", 20.0), ("small alone", 30.0), ("large alone", 9.0)):
        found.append(window("rows", scene, name, Load(4, rows=8), rate, repeat=repeat))
    for rows in (1, 32):
        load = Load(1, rows=rows)
        found += [
            window("gate", scene, "one-member cascade", load, 90.0 / rows, repeat=repeat),
            window("gate", scene, "stage, token ids", load, 100.0 / rows, repeat=repeat),
            row("gate", scene, "tokenising", load, repeat=repeat)
            | {"throughput_rps": 9000.0 / rows, "all": latency(0.1 * rows)},
        ]
    return found


def _costs(scene: str, repeat: int) -> list[Row]:
    found: list[Row] = []
    many = Load(32)
    for share in SHARES:
        timed = timed_limit(16, 32, tried={"1": 1000.0, "32": 2000.0}) if share == 1.0 else None
        speedup = 1 / (0.2 + share)
        limited = limit_row(
            scene, share, rows_per_s=30 * speedup, expected=speedup, repeat=repeat,
            **({} if timed is None else {"limit": timed}),
        )  # fmt: skip
        found.append(limited)
        name = f"cascade, {share:.0%} deferred"
        rate = (36 + 4 * share) * speedup + repeat
        found.append(window("shares", scene, name, many, rate, repeat=repeat, deferred_share=share))
    for name, rate in (("small alone", 170.0), ("large alone", 40.0)):
        found.append(window("shares", scene, name, many, rate, repeat=repeat))
    return found


def _sweeps(scene: str, repeat: int) -> list[Row]:
    settings = (
        ("instances", "1 small, 1 large, 1 BLS", 60.0),
        ("instances", "2 small, 2 large, 2 BLS", 80.0),
        ("cores", "1 core", 45.0), ("cores", "2 cores", 80.0),
        ("batches", "128 tokens a call", 70.0), ("batches", "256 tokens a call", 79.0),
        ("batches", "512 tokens a call", 80.0), ("calls", "one call", 70.0),
        ("calls", "by what calls cost", 80.0),
    )  # fmt: skip
    return [
        window(section, scene, name, Load(32), rate + repeat, repeat=repeat)
        for section, name, rate in settings
    ]


def _once(scene: str) -> list[Row]:
    names = {"small alone": 0.87, "large alone": 0.92}
    names |= {f"cascade, {share:.0%} deferred": 0.88 + 0.04 * share for share in SHARES}
    found = [
        row(
            "accuracy", scene, name, accuracy=right, difference=right - 0.92,
            difference_low=right - 0.93, difference_high=right - 0.91, rows=872,
            deferral_rate=0.26,
        )
        for name, right in names.items()
    ]  # fmt: skip
    found += [
        row("startup", scene, "build: tune", seconds=4.0),
        row("startup", scene, "server, to the first answer", seconds=6.5),
        row("startup", scene, "memory: tritonserver", bytes=120e6),
    ]
    return found
