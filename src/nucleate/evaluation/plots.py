"""Charts as PNG, fit for a paper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nucleate.data.folder import LocalFolder
from nucleate.evaluation.chart import HELD_OUT, Chart, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1f2933"
MUTED = "#7b8794"
COLOURS = ("#2b6cb0", "#dd6b20", "#0f9d8a", "#c2334d", "#7c3aed", "#94a3b8")
REFERENCE = "#9aa5b1"


def draw_charts(charts: Sequence[Chart], out: Path) -> list[Path]:
    """Paths of a PNG of each chart in ``out``; those of an earlier report that are no longer made are removed."""
    folder = LocalFolder(out)
    for name in folder.names():
        if name.endswith(".png") and name.removesuffix(".png") not in {chart.name for chart in charts}:
            folder.remove(name)
    paths = []
    for chart in charts:
        figure = _draw(chart)
        with folder.writing(f"{chart.name}.png") as path:
            figure.savefig(path, format="png", dpi=200, facecolor="white")
        paths.append(out / f"{chart.name}.png")
    return paths


def colour_of(series: Series, number: int) -> str:
    """Colour of a series: grey for the reference, one of its own for all others."""
    return REFERENCE if series.name == HELD_OUT else COLOURS[number % len(COLOURS)]


def _draw(chart: Chart) -> Figure:
    rows = len(chart.labels)
    height = 1.5 + 0.3 * rows if chart.kind == "intervals" else 4.2
    figure, axes = paper_axes((7.5, max(2.2, height)), title=chart.title, subtitle=chart.subtitle)
    draw = {"intervals": _intervals, "mirrored": _mirrored, "histogram": _histogram, "lines": _lines}
    draw[chart.kind](axes, chart)
    axes.set(xlabel=chart.x_label, ylabel=chart.y_label)
    if len(chart.series) > 1 or chart.kind == "lines":  # a single curve needs its name too
        axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc="best")
    return figure


def paper_axes(size: tuple[float, float], *, title: str, subtitle: str) -> tuple[Figure, Axes]:
    """A figure of a size in inches with one pair of axes in the house's style."""
    # Figures without pyplot: no global state, no window system, nothing to close.
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  loads late
    from matplotlib.figure import Figure  # noqa: PLC0415  loads late

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    figure.suptitle(title, x=0.015, ha="left", fontsize=13, fontweight="bold", color=INK)
    axes.set_title(subtitle, loc="left", fontsize=9, color=MUTED, pad=8, wrap=True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(colors=INK, labelsize=9)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    return figure, axes


def _intervals(axes: Axes, chart: Chart) -> None:
    for number, series in enumerate(chart.series):
        colour = colour_of(series, number)
        shift = 0.0 if len(chart.series) == 1 else 0.14 - 0.28 * number
        values = np.array(series.y)
        errors = np.array([values - np.array(series.low), np.array(series.high) - values]).clip(0)
        axes.errorbar(
            values,
            np.array(series.x) + shift,
            xerr=errors,
            fmt="o" if number == 0 else "D",
            color=colour,
            ms=5 if number == 0 else 4,
            lw=1.6,
            capsize=2.5,
            label=series.name,
        )
    axes.set_yticks(range(len(chart.labels)), chart.labels)
    axes.set_ylim(-0.6, len(chart.labels) - 0.4)
    axes.grid(axis="x", color=MUTED, alpha=0.2, lw=0.6)
    axes.set_axisbelow(True)


def _mirrored(axes: Axes, chart: Chart) -> None:
    for number, series in enumerate(chart.series):
        sign = 1 if number == 0 else -1
        axes.bar(
            series.x,
            sign * np.array(series.y),
            width=0.95,
            color=colour_of(series, number),
            label=series.name,
        )
    axes.axhline(0, color=INK, lw=0.8)
    axes.set_xlim(min(chart.series[0].x) - 1, max(chart.series[0].x) + 1)
    axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")


def _histogram(axes: Axes, chart: Chart) -> None:
    for number, series in enumerate(chart.series):
        edges, colour = np.array(series.x), colour_of(series, number)
        if number == 0:
            axes.bar(
                edges[:-1],
                series.y,
                width=np.diff(edges),
                align="edge",
                color=colour,
                alpha=0.75,
                label=series.name,
            )
        else:
            axes.stairs(series.y, edges, color=INK, lw=1.4, label=series.name)
    axes.set_xlim(chart.series[0].x[0], chart.series[0].x[-1])


def _lines(axes: Axes, chart: Chart) -> None:
    for number, series in enumerate(chart.series):
        axes.plot(series.x, series.y, color=colour_of(series, number), lw=1.8, label=series.name)
    if chart.logarithmic:
        axes.set_xscale("log")
    axes.set_xlim(chart.series[0].x[0], chart.series[0].x[-1])
    axes.set_ylim(bottom=0)
    axes.grid(color=MUTED, alpha=0.2, lw=0.6)
