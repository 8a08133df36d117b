"""Relaxed CHGNet energies of the bundled crystals against CHGNet's own relaxer.

    python benchmarks/energies.py --out energies.jsonl

Each crystal is relaxed by ``nucleate.energetics.relax`` and by ``chgnet.model.StructOptimizer`` (FIRE,
``FrechetCellFilter``) from the same primitive cell to the same fmax. A killed run goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nucleate.crystal import encode
from nucleate.data.bundled import BundledCrystal, load_bundled
from nucleate.energetics.batched_relaxation import relax
from nucleate.energetics.chgnet_potential import CHGNetPotential
from nucleate.energetics.relaxation import RelaxationSettings


def compare(entry: BundledCrystal, potential: CHGNetPotential, optimiser: Any, fmax: float) -> dict[str, Any]:
    crystal = encode(entry.unit_cell).crystal
    ours = relax([crystal], potential, settings=RelaxationSettings(fmax=fmax, max_evaluations=500))[0]
    row = {
        "id": entry.id,
        "group": crystal.space_group_number,
        "atoms": crystal.num_atoms_primitive,
        "ours": None if np.isnan(ours.energy) else ours.energy_per_atom,
        "reason": ours.reason,
        "evaluations": ours.evaluations,
        "volume": ours.crystal.volume_per_atom,
        "theirs": None,
    }
    if row["ours"] is None:
        return row
    try:
        theirs = optimiser.relax(
            crystal.to_structure("primitive"), fmax=fmax, steps=1000, verbose=False, assign_magmoms=False
        )
    except Exception as error:  # CHGNet's relaxer may fail where ours names the reason
        return row | {"their_problem": f"{type(error).__name__}: {error}"}
    energies = theirs["trajectory"].energies
    return row | {
        "theirs": float(energies[-1]) / crystal.num_atoms_primitive,
        "their_evaluations": len(energies) - 1,
        "their_volume": theirs["final_structure"].volume / crystal.num_atoms_primitive,
    }


def report(rows: list[dict[str, Any]]) -> None:
    both = [row for row in rows if row["ours"] is not None and row["theirs"] is not None]
    difference = 1000 * np.array([row["ours"] - row["theirs"] for row in both])
    for row, delta in sorted(zip(both, difference), key=lambda pair: -abs(pair[1])):
        if abs(delta) > 0.5:
            print(
                f"{row['id']:45s} {row['group']:4d} {row['atoms']:3d} atoms  ours - theirs {delta:8.3f} meV/atom  "
                f"evaluations {row['evaluations']} / {row['their_evaluations']}  "
                f"volumes {row['volume']:.3f} / {row['their_volume']:.3f}  {row['reason']}"
            )
    for row in rows:
        if row not in both:
            print(f"{row['id']:45s} not compared: {row.get('their_problem') or row['reason']}")
    ours, theirs = (sum(row[name] for row in both) for name in ("evaluations", "their_evaluations"))
    print(
        f"\nn = {len(both)} of {len(rows)}: within 1 meV/atom {np.mean(np.abs(difference) < 1):.3f}, largest "
        f"{np.abs(difference).max():.3f}, median {np.median(np.abs(difference)):.4f} meV/atom; lower than theirs by "
        f"more than 1 meV: {int((difference < -1).sum())}, higher: {int((difference > 1).sum())}\n"
        f"evaluations: ours {ours}, CHGNet's relaxer {theirs}"
    )


def main() -> None:
    from chgnet.model import StructOptimizer

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--fmax", type=float, default=0.01)
    parser.add_argument("--max-atoms", type=int, default=40)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    potential = CHGNetPotential()
    with contextlib.redirect_stdout(io.StringIO()):
        optimiser = StructOptimizer(use_device="cpu", on_isolated_atoms="ignore")
    rows = (
        [json.loads(line) for line in arguments.out.read_text().splitlines()]
        if arguments.out.exists()
        else []
    )
    done = {row["id"] for row in rows}
    sizes = {entry.id: encode(entry.unit_cell).crystal.num_atoms_primitive for entry in load_bundled()}
    for entry in sorted(load_bundled(), key=lambda entry: sizes[entry.id]):  # small ones first
        if entry.id in done or sizes[entry.id] > arguments.max_atoms:
            continue
        rows.append(compare(entry, potential, optimiser, arguments.fmax))
        with arguments.out.open("a") as file:
            file.write(json.dumps(rows[-1]) + "\n")
    report(rows)


if __name__ == "__main__":
    main()
