"""The pictures of a screening: the funnel, and hulls of the binaries and ternaries its candidates lie in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from nucleate.crystal.species import element_symbol
from nucleate.data.folder import LocalFolder
from nucleate.evaluation.plots import COLOURS, INK, MUTED, REFERENCE, paper_axes
from nucleate.screening.funnel_state import StepCount
from nucleate.screening.output import TABLE_FILE
from nucleate.screening.reference_hull import Diagram, composition_of, phase_diagrams
from nucleate.screening.settings import ScreeningSettings
from nucleate.screening.work import isolated_process

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FUNNEL_FILE, DIAGRAM_FOLDER = "funnel.png", "hull_diagrams"
PASSED, LEFT, FAILED = COLOURS[2], COLOURS[1], COLOURS[3]
_REASONS = 3
_CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(3) / 2]])


def draw_screening(folder: Path, counts: Sequence[StepCount], settings: ScreeningSettings) -> list[Path]:
    """Paths of the pictures of a finished screening; hull diagrams that are no longer drawn are removed."""
    place = LocalFolder(folder)
    paths = [_save(place, FUNNEL_FILE, funnel_figure(counts))]
    names = set()
    for diagram, candidates in _diagrams(folder, settings):
        name = f"{'-'.join(map(element_symbol, diagram.system))}.png"
        names.add(name)
        paths.append(_save(place, f"{DIAGRAM_FOLDER}/{name}", hull_figure(diagram, candidates)))
    for name in place.names(DIAGRAM_FOLDER):
        if name not in names:
            place.remove(f"{DIAGRAM_FOLDER}/{name}")
    return paths


def _save(folder: LocalFolder, name: str, figure: Figure) -> Path:
    with folder.writing(name) as path:
        figure.savefig(path, format="png", dpi=200, facecolor="white")
    return folder.path / name


def funnel_figure(counts: Sequence[StepCount]) -> Figure:
    """Bars of what went into each step: how many passed, left and failed, and the commonest reasons why."""
    widest = max(count.given for count in counts) or 1
    figure, axes = paper_axes(
        (9.0, 1.4 + 0.85 * len(counts)),
        title=f"{counts[0].given:,} candidates, {counts[-1].passed:,} left over",
        subtitle="what became of the candidates that went into each step",
    )
    for row, count in enumerate(counts):
        start = 0
        for number, colour, word in (
            (count.passed, PASSED, "passed"),
            (count.left, LEFT, "left"),
            (count.failed, FAILED, "failed"),
        ):
            label = word if row == 0 else None
            axes.barh(row, number / widest, left=start / widest, height=0.42, color=colour, label=label)
            start += number
        axes.text(
            count.given / widest + 0.012,
            row,
            f"{count.passed:,} of {count.given:,}",
            va="center",
            color=INK,
            fontsize=9,
        )
        reasons = [f"{number:,} {reason}" for reason, number in count.reasons[:_REASONS]]
        if len(count.reasons) > _REASONS:
            reasons.append(f"{sum(n for _, n in count.reasons[_REASONS:]):,} others")
        axes.text(0.0, row + 0.38, _shortened("; ".join(reasons)), va="center", color=MUTED, fontsize=7)
    axes.set_yticks(range(len(counts)), [count.step for count in counts])
    axes.set_ylim(len(counts) - 0.35, -0.6)
    axes.set_xlim(0, 1.2)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.legend(
        frameon=False, fontsize=8, labelcolor=INK, ncols=3, loc="lower right", bbox_to_anchor=(1.0, 1.0)
    )
    return figure


def _shortened(text: str, longest: int = 150) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _diagrams(folder: Path, settings: ScreeningSettings) -> list[tuple[Diagram, list[dict[str, Any]]]]:
    """Diagrams of the binaries and ternaries with the candidates nearest to the hull, with all their candidates."""
    if "hull" not in settings.steps or settings.diagrams < 1:
        return []
    names = ["id", "status", "atomic_numbers", "formula", "energy_above_hull", "formation_energy"]
    by_system: dict[tuple[int, ...], list[dict[str, Any]]] = {}
    with pq.ParquetFile(folder / TABLE_FILE) as table:
        for batch in table.iter_batches(columns=names):
            for row in batch.to_pylist():
                if row["energy_above_hull"] is None:
                    continue
                system = tuple(sorted(set(row["atomic_numbers"])))
                if len(system) in (2, 3):
                    by_system.setdefault(system, []).append(row)
    lowest = {system: min(row["energy_above_hull"] for row in rows) for system, rows in by_system.items()}
    chosen = sorted(by_system, key=lambda system: (lowest[system], system))[: settings.diagrams]
    if not chosen:
        return []
    hull = settings.of_step["hull"]
    process = isolated_process(settings.timeout)
    found = process.call(phase_diagrams, settings.resources, hull.window, hull.fmax, hull.formation, chosen)
    return [(diagram, by_system[diagram.system]) for diagram in found]


def hull_figure(diagram: Diagram, candidates: Sequence[dict[str, Any]]) -> Figure:
    """The hull of a binary (formation energy over composition) or ternary (composition triangle) with candidates."""
    symbols = [element_symbol(z) for z in diagram.system]
    stable = sum(point.energy_above_hull < 1e-6 for point in diagram.points)
    passed = sum(row["status"] == "passed" for row in candidates)
    figure, axes = paper_axes(
        (6.4, 4.6) if len(symbols) == 2 else (6.4, 5.4),
        title=f"{'-'.join(symbols)}: {passed:,} of {len(candidates):,} passed",
        subtitle=f"{len(diagram.points):,} reference compositions, {stable:,} on the hull",
    )
    (_binary if len(symbols) == 2 else _ternary)(figure, axes, diagram, candidates)
    return figure


def _shares(row: dict[str, Any]) -> dict[int, float]:
    """Shares of the atoms of a row of the table."""
    composition = composition_of(row["formula"])
    total = sum(count for _, count in composition)
    return {z: count / total for z, count in composition}


def _binary(figure: Figure, axes: Axes, diagram: Diagram, candidates: Sequence[dict[str, Any]]) -> None:
    second = diagram.system[1]
    x = [point.shares.get(second, 0.0) for point in diagram.points]
    y = [point.formation_energy for point in diagram.points]
    for a, b in diagram.ties:
        axes.plot([x[a], x[b]], [y[a], y[b]], color=INK, lw=1.2, zorder=2)
    axes.scatter(x, y, s=14, color=REFERENCE, label="reference", zorder=1)
    for point, px, py in zip(diagram.points, x, y):
        if point.energy_above_hull < 1e-6 and 0 < px < 1:
            axes.annotate(
                point.formula, (px, py), xytext=(0, -11), textcoords="offset points", ha="center", fontsize=7
            )
    for word, colour, chosen in (
        ("left", LEFT, [row for row in candidates if row["status"] != "passed"]),
        ("passed", PASSED, [row for row in candidates if row["status"] == "passed"]),
    ):
        if chosen:
            axes.scatter(
                [_shares(row).get(second, 0.0) for row in chosen],
                [row["formation_energy"] for row in chosen],
                s=26,
                marker="D",
                color=colour,
                label=f"candidates, {word}",
                zorder=3,
            )
    low = min([0.0, *y, *(row["formation_energy"] for row in candidates if row["status"] == "passed")])
    high = max([0.0, *(row["formation_energy"] for row in candidates)])
    span = max(high - low, 0.05)
    axes.set_ylim(low - 0.12 * span, min(high, low + 4 * max(-low, 0.25)) + 0.08 * span)
    axes.set_xlim(-0.02, 1.02)
    axes.axhline(0, color=MUTED, lw=0.6)
    axes.set(xlabel=f"share of {element_symbol(second)}", ylabel="formation energy (eV/atom)")
    axes.legend(frameon=False, fontsize=8, labelcolor=INK)


def _ternary(figure: Figure, axes: Axes, diagram: Diagram, candidates: Sequence[dict[str, Any]]) -> None:
    def place(shares: dict[int, float]) -> np.ndarray:
        return np.array([shares.get(z, 0.0) for z in diagram.system]) @ _CORNERS

    places = [place(point.shares) for point in diagram.points]
    for a, b in diagram.ties:
        axes.plot([places[a][0], places[b][0]], [places[a][1], places[b][1]], color=INK, lw=0.9, zorder=1)
    for point, at in zip(diagram.points, places):
        stable = point.energy_above_hull < 1e-6
        axes.scatter(at[0], at[1], s=22 if stable else 10, color=INK if stable else REFERENCE, zorder=2)
        if stable:
            axes.annotate(
                point.formula,
                (at[0], at[1]),
                xytext=(0, 6),
                textcoords="offset points",
                ha="center",
                fontsize=7,
            )
    # The nearest to the hull on top.
    ordered = sorted(candidates, key=lambda row: -row["energy_above_hull"])
    at = np.array([place(_shares(row)) for row in ordered]).reshape(-1, 2)
    edges = [PASSED if row["status"] == "passed" else "none" for row in ordered]
    above = [1000 * row["energy_above_hull"] for row in ordered]
    shown = axes.scatter(
        at[:, 0],
        at[:, 1],
        c=above,
        cmap="viridis_r",
        marker="D",
        s=34,
        edgecolors=edges,
        linewidths=1.4,
        vmin=0,
        vmax=max(100, *above),
        zorder=3,
    )
    figure.colorbar(
        shown, ax=axes, shrink=0.7, label="candidates: meV/atom above the hull (green edge: passed)"
    )
    axes.set_aspect("equal")
    axes.axis("off")
