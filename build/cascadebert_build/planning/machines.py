"""Kinds of machines, from a TOML file: cores, GPUs, what calls take there, and the price."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from cascadebert_core.policy import StagePolicy

from ..errors import UsageError
from .call_times import CallTimes, LinearTimes, MeasuredTimes
from .site import RequestPrice, Site, site_of_machine

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

THIS = "this machine"
_KEYS = {"cores": int, "gpus": int, "speed": float, "price_per_hour": float}
# By key: the field of `RequestPrice`, and its unit.
_PRICE_KEYS = {
    **{f"{of}_ms": (f"{of}_s", 1e-3) for of in ("cascade", "cascade_row", "server", "call")},
    "cold": ("cold", 1.0),
    "cold_call": ("cold_call", 1.0),
}


@dataclass(frozen=True, slots=True)
class MachineKind:
    """One kind of machine.

    Attributes:
        name: Of the kind.
        cores: Of one machine.
        price_per_hour: In any currency; None: unknown.
        speed: Of a core, relative to the machine that `tune` measured on.
        gpus: Calls of stages at a time; 0: stages run on the cores.
        gpu_times: Of the stages' calls on the GPU, by member.
        price: Of a request, on a core of this machine.
    """

    name: str
    cores: int
    price_per_hour: float | None = None
    speed: float = 1.0
    gpus: int = 0
    gpu_times: Mapping[str, LinearTimes] | None = None
    price: RequestPrice = field(default_factory=RequestPrice)

    def site(
        self,
        names: Sequence[str],
        stages: Sequence[StagePolicy],
        measured: Sequence[MeasuredTimes],
        niceness: int,
        inline: int = 0,
    ) -> Site:
        """A machine of this kind with a cascade.

        Args:
            names: Of the members.
            stages: Of the policy.
            measured: What calls of each stage take on a core of the machine that `tune` measured.
            niceness: Of all stages but the first.
            inline: The first stages that run in the cascade's process on a CPU.

        Raises:
            UsageError: It has a GPU, and the file does not say what a member's calls take there.
        """
        times: list[CallTimes] = []
        for name, of_stage in zip(names, measured, strict=True):
            if not self.gpus:
                times.append(replace(of_stage, factor=of_stage.factor / self.speed))
            elif name in (self.gpu_times or {}):
                times.append((self.gpu_times or {})[name])
            else:
                raise UsageError(
                    f"the machine {self.name!r} has a GPU, and [machines.{self.name}.stages.{name}]"
                    " is missing: give call_ms and token_us, measured with `python -m "
                    "benchmarks.tools.engines`"
                )
        return site_of_machine(
            self.cores,
            list(zip(stages, times, strict=True)),
            gpus=self.gpus,
            niceness=niceness,
            inline=inline,
            price=self.price,
        )


def machines_from_file(path: Path) -> list[MachineKind]:
    """Read kinds of machines.

    Raises:
        UsageError: The file is missing or wrong; the message names key and value.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise UsageError(f"{path} cannot be read: {exc}") from exc
    tables = _table(raw, "", ("machines",)).get("machines")
    if not isinstance(tables, dict) or not tables:
        raise UsageError(f"{path} has no table [machines.NAME]: give one for each kind")
    return [_kind(name, table) for name, table in cast("dict[str, Any]", tables).items()]


def _kind(name: str, raw: Any) -> MachineKind:
    where = f"machines.{name}"
    table = _table(raw, where, (*_KEYS, "stages", "request"))
    if "cores" not in table:
        raise UsageError(f"{where}.cores is missing")
    found: dict[str, Any] = {}
    for key, kind in _KEYS.items():
        if key in table:
            found[key] = _number(table[key], f"{where}.{key}", whole=kind is int)
    if found["cores"] < 1 or found.get("speed", 1) == 0:
        raise UsageError(f"{where}: cores and speed are above 0")
    stages = {
        member: _linear(each, f"{where}.stages.{member}")
        for member, each in _table(table.get("stages", {}), f"{where}.stages", None).items()
    }
    if stages and not found.get("gpus"):
        raise UsageError(f"{where}.stages is for machines with a GPU: give gpus = 1, or remove it")
    request = _table(table.get("request", {}), f"{where}.request", (*_PRICE_KEYS,))
    given: dict[str, float] = {}
    for key, value in request.items():
        field_name, unit = _PRICE_KEYS[key]
        given[field_name] = unit * _number(value, f"{where}.request.{key}")
    price = replace(RequestPrice().times(1 / found.get("speed", 1.0)), **given)
    return MachineKind(name, **found, gpu_times=stages or None, price=price)


def _linear(raw: Any, where: str) -> LinearTimes:
    table = _table(raw, where, ("call_ms", "token_us"))
    if "call_ms" not in table:
        raise UsageError(f"{where}.call_ms is missing: give the milliseconds of a call")
    return LinearTimes(
        1e-3 * _number(table["call_ms"], f"{where}.call_ms"),
        1e-6 * _number(table.get("token_us", 0.0), f"{where}.token_us"),
    )


def _table(raw: Any, where: str, keys: Sequence[str] | None) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise UsageError(f"{where} is {raw!r}: give a table")
    table = cast("dict[str, Any]", raw)
    unknown = [] if keys is None else sorted(set(table) - set(keys))
    if unknown:
        raise UsageError(
            f"unknown key {unknown[0]!r} in {where or 'the top level'}: give one of "
            f"{', '.join(keys or ())}"
        )
    return table


def _number(value: Any, where: str, *, whole: bool = False) -> Any:
    kinds = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not 0 <= value < 1e9:
        raise UsageError(
            f"{where} is {value!r}: give {'a whole' if whole else 'a'} number, 0 or more"
        )
    return value if whole else float(value)
