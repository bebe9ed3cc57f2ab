"""A proposed cascade as a commented cascade.toml."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ..config.schema import CascadeConfig, DataConfig, MemberConfig
from .cascade import Proposal


def toml_from_proposal(proposal: Proposal, folder: Path, costs: Sequence[str]) -> str:
    """Write a cascade.toml that says why each value is as it is.

    Args:
        proposal: The cascade.
        folder: Of the file; paths below it are relative to it.
        costs: What each member costs, in words.
    """
    config = proposal.config
    lines = [
        "# Written by `cascadebert init`. Every key: the documentation, cascade.toml",
        "# Next: cascadebert advise, cascadebert build, cascadebert serve",
        f"name = {_text(config.name)}  # the Triton model's name",
    ]
    if config.labels is not None:
        lines.append(f"labels = {_list(config.labels)}")
    else:
        lines.append(f"# labels = {_list(proposal.labels)}  # as the checkpoints name them")
    lines += ["", "# Small to large: a row goes to the next member if this one is not sure."]
    for member, lengths, cost in zip(config.members, proposal.lengths, costs, strict=True):
        lines += [
            "[[members]]",
            f"name = {_text(member.name)}  # {cost}",
            f"checkpoint = {_text(_path(config, member, folder))}",
            f"max_length = {member.max_length}  # {lengths}",
            *_of_long_texts(member, lengths.longest),
            "",
        ]
    assert config.data is not None
    lines += [*_of_data(config.data, folder, len(proposal.rows.texts)), ""]
    runtime = config.runtime
    lines += ["[runtime]", f"# {proposal.machine}"]
    if runtime.engine == "tensorrt":
        lines.append('engine = "tensorrt"')
    else:
        lines += [
            'engine = "onnxruntime"',
            "# optimize = true     # fused graphs, which are faster; docs/onnxruntime.md",
            '# precision = "int8"  # faster again on CPUs with VNNI',
        ]
    lines += [
        "",
        "# What thresholds are chosen for. Without goals there are three operating points:",
        "# at most 5%, 2% and 1% of the answers differ from the last member's.",
        "# [tune]",
        "# max_disagreement = 0.02   # or max_accuracy_drop = 0.01, max_deferral_rate = 0.25, …",
    ]
    return "\n".join(lines) + "\n"


def _of_data(data: DataConfig, folder: Path, n_rows: int) -> list[str]:
    path = Path(data.path)
    lines = [
        "[data]",
        f"# {n_rows:,} rows. They must be held out: no member was trained on them.",
        f"path = {_text(_relative(path, folder) if path.is_absolute() else data.path)}",
        f"text = {_text(data.text)}",
    ]
    if data.text_pair is not None:
        lines.append(f"text_pair = {_text(data.text_pair)}")
    no_label = "  # the rows have none: guarantees are of disagreement alone"
    lines.append(f"label = {_text(data.label or '')}{'' if data.label else no_label}")
    if data.format is not None:
        lines.append(f"format = {_text(data.format)}")
    return lines


def _of_long_texts(member: MemberConfig, longest: int) -> list[str]:
    if longest <= member.max_length:
        return []
    return ['# long_texts = "mean"  # reads longer texts in windows instead of cutting them']


def _path(config: CascadeConfig, member: MemberConfig, folder: Path) -> str:
    source = config.checkpoint(member)
    return _relative(Path(source), folder) if Path(source).is_absolute() else source


def _relative(path: Path, folder: Path) -> str:
    """The path relative to a folder that it lies in, else as it is."""
    return f"./{path.relative_to(folder)}" if path.is_relative_to(folder) else str(path)


def _text(value: str) -> str:
    """A TOML string. JSON's escapes are TOML's, but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _list(values: Sequence[str]) -> str:
    return f"[{', '.join(map(_text, values))}]"
