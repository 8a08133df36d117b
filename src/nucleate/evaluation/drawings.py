"""The drawings of charts: one PNG each, and one interactive page of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nucleate.data.folder import LocalFolder
from nucleate.evaluation.chart import Chart
from nucleate.evaluation.plots import draw_charts

INTERACTIVE_FILE = "interactive.html"


def write_drawings(charts: Sequence[Chart], out: Path, *, title: str) -> list[Path]:
    """Paths of the drawings in ``out``: a PNG of each chart, and ``interactive.html`` where plotly is installed.

    Drawings of an earlier report that are no longer made are removed.
    """
    folder, paths = LocalFolder(out), draw_charts(charts, out)
    folder.remove(INTERACTIVE_FILE)
    try:
        from nucleate.evaluation.interactive import page  # noqa: PLC0415  plotly is in an extra
    except ModuleNotFoundError:
        return paths
    if charts:
        folder.write_bytes(INTERACTIVE_FILE, page(charts, title=title).encode())
        paths.append(out / INTERACTIVE_FILE)
    return paths
