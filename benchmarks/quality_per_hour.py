"""Match on held-out templates against the hours of training behind several weights, by size of the network.

The weights are judged alike: MP-20 ``val``, true templates, the plain solver (no restarts, no autoguidance, which old
weights cannot), the same noise. Hours are what each file's own history says of its geometry network.

    python benchmarks/quality_per_hour.py --data DATA --work RUN --weights OLD.safetensors NEW.safetensors \\
        --image curve.png --out curve.json

What is judged is kept below ``--work`` by the digest of the weights: the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import nucleate
from nucleate.crystal import Crystal
from nucleate.generation.generator import GUIDANCE, LATTICE_TEMPERATURE
from nucleate.models.checkpoint import load_checkpoint
from real_structures import describe_run, print_run, write_json
from template_match import draw, held_out, strata

SETTINGS = {
    "steps": 20,
    "restarts": 0,
    "autoguidance": 0.0,
    "candidates": 1,
    "lattice_temperature": LATTICE_TEMPERATURE,
    "guidance": dict(GUIDANCE),
    "mixed_precision": True,
}
SHOWN = {"0-999": "all", "0-0": "0", "1-1": "1", "3-3": "3", "4-5": "4 to 5", "6-8": "6 to 8", "9-999": "9 +"}
"""Strata that are drawn; two free coordinates lie between one and three."""

LABEL_GAP = 4.0
"""Per cent between labels that would lie on each other."""


def judge(path: Path, truth: list[Crystal], options: argparse.Namespace) -> dict[str, Any]:
    """Hours and size of the geometry network of a file, and its match."""
    checkpoint = load_checkpoint(path)
    if checkpoint.geometry is None:
        raise SystemExit(f"{path} has no geometry network.")
    digest = nucleate.load(path).digest[:12]
    kept = options.work / f"match-{digest}-{options.size}-{options.tries}-{options.seed}.json"
    if not kept.exists():
        tries = [
            draw(checkpoint, truth, settings=SETTINGS, first=k, seed=options.seed, random=False)
            for k in range(options.tries)
        ]
        history = checkpoint.history.training["geometry"]
        write_json(
            kept,
            {
                "digest": digest,
                "steps": history["steps"],
                "hours": history["minutes"] / 60,
                "parameters": sum(p.numel() for p in checkpoint.geometry.parameters()),
                "strata": strata(truth, tries),
            },
        )
    return json.loads(kept.read_text())


def plot(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """One line per stratum over the hours, one marker per size of the network."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.subplots()
    sizes = sorted({row["parameters"] for row in rows})
    markers = dict(zip(sizes, "osD^v*", strict=False))
    hours, ends = [row["hours"] for row in rows], {}
    for i, (key, label) in enumerate(SHOWN.items()):
        match = [100 * row["strata"][key]["per_try"] for row in rows]
        colour, width = ("black", 2.0) if key == "0-999" else (f"C{i - 1}", 1.0)
        ax.plot(hours, match, color=colour, linewidth=width)
        for x, y, row in zip(hours, match, rows, strict=True):
            ax.plot(x, y, markers.get(row["parameters"], "x"), color=colour, markersize=5)
        ends[label] = (match[-1], colour)
    height = 100.0 + LABEL_GAP
    for label, (match_now, colour) in sorted(ends.items(), key=lambda end: -end[1][0]):
        height = min(match_now, height - LABEL_GAP)
        ax.text(hours[-1] + 0.15, height, label, color=colour, va="center", fontsize=8)
    for size in sizes:
        ax.plot([], [], markers.get(size, "x"), color="grey", label=f"{size / 1e6:.2f} M parameters")
    ax.set_xlabel("hours of training on one core")
    ax.set_ylabel("match per try with the true template, %")
    ax.set_title("by free coordinates", fontsize=9, loc="left")
    ax.legend(fontsize=8, frameon=False, loc="lower right")
    ax.spines[["top", "right"]].set_visible(False)
    ax.margins(x=0.08)
    ax.set_ylim(0, 102)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--weights", type=Path, nargs="+", required=True)
    parser.add_argument("--size", type=int, default=600, help="held-out structures")
    parser.add_argument("--tries", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--image", type=Path, help="the curve as PNG")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    run = describe_run(**vars(options))
    print_run(run)
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    truth = held_out(options.data, "val", options.size, options.seed)
    rows = []
    for path in options.weights:
        row = judge(path, truth, options)
        rows.append(row)
        print(
            f"{row['digest']}  {row['parameters'] / 1e6:5.2f} M  {row['steps']:7,d} steps {row['hours']:5.1f} h  "
            + "  ".join(
                f"{label}: {100 * row['strata'][key]['per_try']:.1f}" for key, label in SHOWN.items()
            ),
            flush=True,
        )
    rows.sort(key=lambda row: row["hours"])
    write_json(options.out, {"run": run, "rows": rows})
    if options.image is not None:
        plot(rows, options.image)


if __name__ == "__main__":
    main()
