"""What a checkpoint's name means: a folder, or a model of the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

# `huggingface_hub` allows these ids: a name, or an owner and a name.
_HUB_ID = re.compile(r"([\w.-]{1,96}/)?[\w.-]{1,96}", re.ASCII)

# First parts that people give to folders, and that own no models on the hub worth the risk. A
# missing folder is then an error at once, rather than after half a minute of asking the hub.
_FOLDER_NAMES = re.compile(
    "(checkpoint|ckpt|data|exp|experiment|member|model|output|result|run|saved_model|save|weight)s?"
    "|finetuned|lightning_logs|out|tmp|trained|work",
    re.IGNORECASE,
)


def checkpoint_source(value: str, folder: Path) -> str:
    """A checkpoint as an absolute folder, or as a hub id.

    A value is a folder if it exists, if it looks like a path, or if its first part is a folder
    that exists or one of the usual names of folders.

    Args:
        value: What the user gave.
        folder: Relative paths are relative to it.
    """
    path = (folder / Path(value).expanduser()).resolve()
    first = value.partition("/")[0]
    is_folder = (
        path.exists()
        or value.startswith((".", "/", "~"))
        or _HUB_ID.fullmatch(value) is None
        or ("/" in value and (_FOLDER_NAMES.fullmatch(first) or (folder / first).is_dir()))
    )
    return str(path) if is_folder else value
