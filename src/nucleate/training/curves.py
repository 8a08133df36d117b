"""Curves of a training run as a PNG: losses, and figures of samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

_COLOURS = {"train": "#94a3b8", "val": "#2b6cb0", "sample": "#2b6cb0"}


def draw_curves(rows: Sequence[dict[str, str]], path: Path, *, splits: Sequence[str]) -> bool:
    """Whether the curves were drawn: not where matplotlib is missing or there is nothing to draw.

    One panel per quantity of each part, against optimiser steps, training pale and the others dark.

    Args:
        rows: of ``metrics.csv``.
        path: PNG to be written.
        splits: which of train, val and sample.
    """
    # A bare accelerator machine has no matplotlib; training goes on without the picture there.
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ModuleNotFoundError:
        return False
    curves: dict[tuple[str, str], dict[str, list[tuple[int, float]]]] = {}
    for row in rows:
        if row["split"] not in splits:
            continue
        panel = curves.setdefault((row["part"], row["quantity"]), {})
        panel.setdefault(row["split"], []).append((int(row["step"]), float(row["value"])))
    curves = {
        key: panel for key, panel in curves.items() if key[1] not in ("learning_rate", "crystals_per_second")
    }
    if not curves:
        return False
    columns = min(4, len(curves))
    num_rows = -(-len(curves) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.5 * num_rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(num_rows, columns, squeeze=False).ravel()
    for ax, ((part, quantity), panel) in zip(axes, curves.items()):
        for split, points in panel.items():
            ax.plot(
                *zip(*points), color=_COLOURS[split], label=split, marker="." if len(points) < 3 else None
            )
        ax.set_title(f"{part}: {quantity}", fontsize=9, loc="left")
        ax.set_xlabel("step", fontsize=8)
        ax.tick_params(labelsize=7)
        ax.spines[["top", "right"]].set_visible(False)
        if len(panel) > 1:
            ax.legend(fontsize=7, frameon=False)
    for ax in axes[len(curves) :]:
        ax.set_visible(False)
    part_file = path.with_name(f"{path.name}.tmp.png")
    figure.savefig(part_file, dpi=110)
    part_file.replace(path)
    return True
