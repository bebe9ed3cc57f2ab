"""The whole page, from top to bottom."""

from __future__ import annotations

from . import markup as m
from .diagrams import confidence_section, reliability_section, trade_section
from .headline import headline
from .material import Material
from .provenance import Provenance
from .style import STYLE
from .tables import example_section, source_section

# Nothing is fetched and nothing is run, whatever a text in the data may hold.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def page_from_material(material: Material, provenance: Provenance) -> str:
    """One HTML page that stands alone: no request leaves it, and it has no script."""
    title = f"{provenance.cascade}: evaluation"
    sections = [
        headline(material, provenance),
        trade_section(material),
        reliability_section(material),
        confidence_section(material),
        example_section(material),
        source_section(material, provenance),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{m.escaped(title)}</title>\n<style>{STYLE}</style></head>\n<body><main>\n"
        + "\n".join(section for section in sections if section)
        + "\n</main></body></html>\n"
    )
