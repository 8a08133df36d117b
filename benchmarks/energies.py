"""Relaxed CHGNet energies of the bundled crystals against CHGNet's own relaxer.

    python benchmarks/energies.py --out energies.jsonl --max-atoms 200

Each crystal is relaxed by ``nucleate.energetics.relax`` and by ``chgnet.model.StructOptimizer`` (FIRE,
``FrechetCellFilter``) from the same primitive cell to the same fmax. A killed run goes on.

Where the two end more than 1 meV/atom apart, each is begun once more at the other's end: if it stays there, both ends
are minima by both relaxers and the energies agree in each; if it leaves, the other had not arrived.
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
from pymatgen.core import Structure

from nucleate.crystal import encode
from nucleate.data.bundled import BundledCrystal, load_bundled
from nucleate.energetics.batched_relaxation import relax
from nucleate.energetics.chgnet_potential import CHGNetPotential
from nucleate.energetics.relaxation import RelaxationSettings
from relaxation import begun_at, cell_record

SAME_ENERGY = 1e-3
"""eV/atom."""


def relax_with_chgnet(optimiser: Any, structure: Structure, *, fmax: float, steps: int) -> dict[str, Any]:
    theirs = optimiser.relax(structure, fmax=fmax, steps=steps, verbose=False, assign_magmoms=False)
    energies, end = theirs["trajectory"].energies, theirs["final_structure"]
    return {
        "theirs": float(energies[-1]) / len(structure),
        "their_evaluations": len(energies) - 1,
        "their_volume": end.volume / len(structure),
        "their_end": cell_record(end.lattice.matrix, end.frac_coords, end.atomic_numbers),
    }


def compare(
    entry: BundledCrystal, potential: CHGNetPotential, optimiser: Any, *, fmax: float, steps: int
) -> dict[str, Any]:
    crystal = encode(entry.unit_cell).crystal
    ours = relax([crystal], potential, settings=RelaxationSettings(fmax=fmax, max_evaluations=500))[0]
    row: dict[str, Any] = {
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
        row |= relax_with_chgnet(optimiser, crystal.to_structure("primitive"), fmax=fmax, steps=steps)
    except Exception as error:  # CHGNet's relaxer may fail where ours names the reason
        return row | {"their_problem": f"{type(error).__name__}: {error}"}
    if abs(row["ours"] - row["theirs"]) > SAME_ENERGY:
        again = begun_at([row["their_end"]], potential, fmax=fmax, most=500)[0]
        row["ours_from_their_end"] = again.energy_per_atom
        row["ours_from_their_end_reason"] = again.reason
        other = relax_with_chgnet(optimiser, ours.crystal.to_structure("primitive"), fmax=fmax, steps=steps)
        row["theirs_from_our_end"] = other["theirs"]
        row["theirs_from_our_end_evaluations"] = other["their_evaluations"]
    return row


def report(rows: list[dict[str, Any]], steps: int) -> None:
    both = [row for row in rows if row["ours"] is not None and row["theirs"] is not None]
    difference = 1000 * np.array([row["ours"] - row["theirs"] for row in both])
    for row, delta in sorted(zip(both, difference), key=lambda pair: -abs(pair[1])):
        if abs(delta) > 0.5:
            print(
                f"{row['id']:45s} {row['group']:4d} {row['atoms']:3d} atoms  ours - theirs {delta:8.3f} meV/atom  "
                f"evaluations {row['evaluations']} / {row['their_evaluations']}"
                f"{' (not converged)' if row['their_evaluations'] >= steps else ''}  "
                f"volumes {row['volume']:.3f} / {row['their_volume']:.3f}  {row['reason']}"
            )
        if "ours_from_their_end" in row:
            print(
                f"    begun at the other's end: ours - theirs "
                f"{1000 * (row['ours_from_their_end'] - row['theirs']):+.3f} meV/atom "
                f"({row['ours_from_their_end_reason']}), theirs - ours "
                f"{1000 * (row['theirs_from_our_end'] - row['ours']):+.3f} "
                f"({row['theirs_from_our_end_evaluations']} evaluations)"
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
    parser.add_argument("--steps", type=int, default=1000, help="of CHGNet's relaxer")
    parser.add_argument("--max-atoms", type=int, default=40)
    parser.add_argument("--only", nargs="+", default=[], metavar="ID", help="these crystals alone")
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
        if arguments.only and entry.id not in arguments.only:
            continue
        rows.append(compare(entry, potential, optimiser, fmax=arguments.fmax, steps=arguments.steps))
        with arguments.out.open("a") as file:
            file.write(json.dumps(rows[-1]) + "\n")
    report(rows, arguments.steps)


if __name__ == "__main__":
    main()
