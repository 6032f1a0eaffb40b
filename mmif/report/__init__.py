"""The report of one study as a single HTML file, and the pieces that a batch's page reuses.

`mmif.report.page` holds what any page needs (base template, style, sortable table) and imports
nothing heavy.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmif.report.document import DrawnReport
    from mmif.result import FusionResult

__all__ = ["draw_report", "write_preview", "write_report"]


def draw_report(result: "FusionResult") -> "DrawnReport":
    """The page of one study but for its words; see `mmif.report.document.draw_report`."""
    from mmif.report import document

    return document.draw_report(result)


def write_report(result: "FusionResult", summary: Mapping[str, Any], path: Path) -> None:
    """Write ``report.html`` of one study; see `mmif.report.document.write_report`."""
    from mmif.report import document

    document.write_report(result, summary, path)


def write_preview(result: "FusionResult", path: Path) -> None:
    """Write a contact sheet of one study as PNG; see `mmif.report.preview.write_preview`."""
    from mmif.report import preview

    preview.write_preview(result, path)
