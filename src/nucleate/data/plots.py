"""Drawings of what a store holds: space groups, elements, orbits, atoms and densities, one PNG each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nucleate.crystal.elements import element_symbol
from nucleate.data import periodic_table
from nucleate.data.folder import LocalFolder
from nucleate.data.summary import StoreSummary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK = "#1f2933"
_MUTED = "#7b8794"
_BLUE = "#2b6cb0"
_ORANGE = "#dd6b20"
_EMPTY = "#f0f2f5"

_SCREW_AXIS = re.compile(r"_(\d)")
_SUBSCRIPTS = "₀₁₂₃₄₅₆₇₈₉"

_GAP = 0.6  # how much of the empty row above the f block is taken out

# First and last group of each crystal system, and a colour for it.
_SYSTEMS = (
    ("triclinic", 1, 2, "#94a3b8"),
    ("monoclinic", 3, 15, "#2b6cb0"),
    ("orthorhombic", 16, 74, "#0f9d8a"),
    ("tetragonal", 75, 142, "#7cb342"),
    ("trigonal", 143, 167, "#e0a800"),
    ("hexagonal", 168, 194, "#dd6b20"),
    ("cubic", 195, 230, "#c2334d"),
)


def draw_summary(summary: StoreSummary, out: Path, *, title: str) -> list[Path]:
    """Paths of the PNG files written: space groups, elements, orbits, atoms, density.

    Args:
        summary: what to draw.
        out: folder, made if need be.
        title: stands above each drawing, such as the name of the store.
    """
    folder = LocalFolder(out)
    paths = []
    for name, draw in (
        ("space_groups", _space_groups),
        ("elements", _elements),
        ("orbits", _orbits),
        ("atoms", _atoms),
        ("density", _density),
    ):
        figure = draw(summary, title)
        with folder.writing(f"{name}.png") as path:
            figure.savefig(path, format="png", dpi=160, facecolor="white")
        paths.append(out / f"{name}.png")
    return paths


def _axes(size: tuple[float, float], title: str, subtitle: str) -> tuple[Figure, Axes]:
    # Figures without pyplot: no global state, no window system, nothing to close.
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  loads late
    from matplotlib.figure import Figure  # noqa: PLC0415  loads late

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    figure.suptitle(title, x=0.015, ha="left", fontsize=13, fontweight="bold", color=_INK)
    axes.set_title(subtitle, loc="left", fontsize=10, color=_MUTED, pad=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_MUTED)
    axes.tick_params(colors=_INK, labelsize=9)
    axes.xaxis.label.set_color(_INK)
    axes.yaxis.label.set_color(_INK)
    return figure, axes


def _space_groups(summary: StoreSummary, title: str) -> Figure:
    counts = summary.space_groups
    used = int((counts > 0).sum())
    figure, axes = _axes(
        (11.0, 4.2), title, f"Space groups: {used} of 230 occur; the most frequent are labelled"
    )
    numbers = np.arange(1, 231)
    top = max(1, int(counts.max(initial=0)))
    for name, first, last, colour in _SYSTEMS:
        part = slice(first - 1, last)
        axes.bar(numbers[part], counts[part], width=0.95, color=colour)
        axes.axvspan(first - 0.5, last + 0.5, color=colour, alpha=0.06, lw=0)
        share = counts[part].sum() / max(1, summary.num_records)
        # The first two systems are a few groups wide: their labels stand one below the other.
        narrow = first < 16
        axes.text(
            1.5 if narrow else (first + last) / 2,
            top * (1.18 if first == 3 else 1.36),
            f"{name}{' ' if narrow else chr(10)}{share:.1%}",
            ha="left" if narrow else "center",
            va="top",
            fontsize=8.5,
            color=colour,
            fontweight="bold",
        )
    _label_highest(axes, counts, top)
    axes.set(xlim=(0, 231), ylim=(0, top * 1.38), xlabel="space group number", ylabel="crystals")
    axes.set_xticks([1, 25, 50, 75, 100, 125, 150, 175, 200, 230])
    return figure


def _label_highest(axes: Axes, counts: np.ndarray, top: int) -> None:
    """Symbols on the highest bars that do not stand in each other's way."""
    from nucleate.crystal import space_group  # noqa: PLC0415  reads the tables

    labelled: list[int] = []
    for index in np.argsort(-counts, kind="stable")[:20]:
        if counts[index] and all(abs(index - other) >= 9 for other in labelled) and len(labelled) < 10:
            labelled.append(int(index))
            symbol = _SCREW_AXIS.sub(lambda m: _SUBSCRIPTS[int(m[1])], space_group(int(index) + 1).symbol)
            axes.text(
                index + 1,
                counts[index] + top * 0.015,
                symbol,
                ha="center",
                va="bottom",
                fontsize=8,
                color=_INK,
            )


def _elements(summary: StoreSummary, title: str) -> Figure:
    from matplotlib import colormaps  # noqa: PLC0415  loads late
    from matplotlib.cm import ScalarMappable  # noqa: PLC0415
    from matplotlib.colors import LogNorm, to_rgb  # noqa: PLC0415
    from matplotlib.patches import FancyBboxPatch  # noqa: PLC0415

    counts = summary.elements
    used = int((counts > 0).sum())
    figure, axes = _axes((10.4, 6.4), title, f"Elements: {used} occur; the number of crystals that hold each")
    norm = LogNorm(1, max(10, int(counts.max(initial=1))))
    colours = colormaps["YlGnBu"]
    for number in range(1, len(counts) + 1):
        line, column = periodic_table.place(number)
        row = line - _GAP if line > 6 else float(line)
        count = int(counts[number - 1])
        face = to_rgb(colours(0.08 + 0.87 * norm(count)) if count else _EMPTY)
        ink = (
            _MUTED
            if not count
            else "white"
            if 0.299 * face[0] + 0.587 * face[1] + 0.114 * face[2] < 0.55
            else _INK
        )
        axes.add_patch(
            FancyBboxPatch(
                (column + 0.05, -row + 0.05),
                0.9,
                0.9,
                boxstyle="round,pad=0,rounding_size=0.09",
                fc=face,
                ec="none",
            )
        )
        axes.text(column + 0.12, -row + 0.86, str(number), fontsize=5.5, color=ink, va="top")
        axes.text(
            column + 0.5,
            -row + 0.52,
            element_symbol(number),
            fontsize=12,
            color=ink,
            ha="center",
            va="center",
        )
        if count:
            axes.text(
                column + 0.5, -row + 0.2, _short(count), fontsize=6.5, color=ink, ha="center", va="center"
            )
    for row, series in ((8 - _GAP, "La-Lu"), (9 - _GAP, "Ac-Lr")):
        axes.text(1.9, -row + 0.5, series, fontsize=8, color=_MUTED, ha="right", va="center")
    axes.set(xlim=(-0.05, 18.05), ylim=(-periodic_table.NUM_ROWS + 0.9 + _GAP, 1.05), aspect="equal")
    axes.axis("off")
    bar = figure.colorbar(
        ScalarMappable(norm, colours), ax=axes, orientation="horizontal", shrink=0.35, aspect=35, pad=0.01
    )
    bar.set_label("crystals", color=_INK, fontsize=9)
    bar.outline.set_visible(False)
    return figure


def _orbits(summary: StoreSummary, title: str) -> Figure:
    return _counts(summary.num_orbits, title, "Orbits per crystal", "orbits in the asymmetric unit", _BLUE)


def _atoms(summary: StoreSummary, title: str) -> Figure:
    return _counts(
        summary.num_atoms, title, "Atoms per primitive cell", "atoms in the primitive cell", _ORANGE
    )


def _counts(counts: np.ndarray, title: str, what: str, label: str, colour: str) -> Figure:
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415  loads late

    mean, median = _mean(counts), _quantile(counts, 0.5)
    last = len(counts) - 1
    figure, axes = _axes((7.5, 4.2), title, f"{what}: mean {mean:.1f}, median {median}, largest {last}")
    # A few giants must not squeeze the rest: the axis ends at the 99.5th percentile, what is beyond is said.
    end = max(5, _quantile(counts, 0.995))
    axes.bar(np.arange(len(counts))[: end + 1], counts[: end + 1], width=0.86, color=colour)
    axes.axvline(mean, color=_INK, lw=1, ls=(0, (4, 3)))
    beyond = int(counts[end + 1 :].sum())
    if beyond:
        text = f"{beyond:,} more beyond {end}"
        axes.text(0.99, 0.95, text, transform=axes.transAxes, ha="right", va="top", fontsize=9, color=_MUTED)
    axes.set(xlim=(0.3, end + 0.7), xlabel=label, ylabel="crystals")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _density(summary: StoreSummary, title: str) -> Figure:
    counts, edges = summary.densities, summary.density_edges
    figure, axes = _axes((7.5, 4.2), title, f"Density: mean {summary.mean_density:.2f} g/cm³")
    occupied = np.flatnonzero(counts)
    end = edges[occupied[-1] + 1] if len(occupied) else edges[-1]
    axes.bar(
        edges[:-1], counts, width=np.diff(edges), align="edge", color="#0f9d8a", edgecolor="white", lw=0.4
    )
    axes.axvline(summary.mean_density, color=_INK, lw=1, ls=(0, (4, 3)))
    axes.set(xlim=(0, end), xlabel="density (g/cm³)", ylabel="crystals")
    return figure


def _mean(counts: np.ndarray) -> float:
    return float((np.arange(len(counts)) * counts).sum() / max(1, counts.sum()))


def _quantile(counts: np.ndarray, share: float) -> int:
    return int(np.searchsorted(np.cumsum(counts), share * counts.sum()))


def _short(count: int) -> str:
    if count < 10_000:
        return str(count)
    return f"{count / 1000:.0f}k" if count < 1_000_000 else f"{count / 1e6:.1f}M"
