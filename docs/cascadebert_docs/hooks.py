"""What mkdocs calls while it builds the site; mkdocs.yml names this file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs"))  # mkdocs reads this file alone, not its package

from mkdocs.config.defaults import MkDocsConfig  # noqa: E402
from mkdocs.structure.files import File, Files  # noqa: E402

from cascadebert_docs.commands_page import commands_page  # noqa: E402
from cascadebert_docs.links import repository_path, rewritten, site_path, targets  # noqa: E402
from cascadebert_docs.settings_page import settings_page  # noqa: E402

GENERATED = {"cascade-toml.md": settings_page, "command-line.md": commands_page}
"""The pages that are made from code, with the functions that make them."""

ELSEWHERE = (
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "benchmarks/README.md",
    "benchmarks/NOTES.md",
    "benchmarks/suite/RESULTS.md",
    "benchmarks/suite/windows/RESULTS.md",
    "benchmarks/studies/accuracy/RESULTS.md",
    "benchmarks/studies/accuracy/COMPLETE.md",
    "benchmarks/studies/gates/RESULTS.md",
    "benchmarks/studies/gates/POOLED.md",
    "benchmarks/studies/guarantees/RESULTS.md",
)
"""The files outside of docs/ that are pages of the site."""

_PICTURES = (".svg", ".png")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, the pages outside of docs/, and the pictures that these show."""
    for page, make in GENERATED.items():
        files.append(File.generated(config, page, content=make()))
    for file in ELSEWHERE:
        text = (ROOT / file).read_text(encoding="utf-8")
        files.append(File.generated(config, site_path(file), content=text))
        for target in targets(text, file):
            place = site_path(target)
            if target.endswith(_PICTURES) and files.get_file_from_path(place) is None:
                files.append(File.generated(config, place, abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown: str, page: Any, config: MkDocsConfig, files: Files) -> str:
    """Turn links of the checkout into links of the site."""
    file = repository_path(page.file.src_uri, ELSEWHERE)
    on_site = {repository_path(each.src_uri, ELSEWHERE) for each in files}
    on_site |= {each.src_uri for each in files}  # pictures outside of docs/
    return rewritten(markdown, file, on_site, ROOT)
