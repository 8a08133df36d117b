"""Relaxation inside the symmetry against ASE: evaluations, time, energies, volumes, groups.

    python benchmarks/relaxation.py --data ../shared/data --count 40

Real crystals of the val pool, rattled inside their symmetry (0.1 Å a free atom, 2 % strain), relaxed by
``nucleate.energetics.relax`` and by ASE (``FrechetCellFilter``, ``FixSymmetry``, BFGS, CHGNet's own calculator) from
the same primitive cell to the same fmax. Time is processor time of this process. What ASE found is kept in ``--out``
crystal by crystal, so that a killed run goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from nucleate.crystal import Crystal, UnitCell, encode
from nucleate.energetics.batched_relaxation import relax
from nucleate.energetics.chgnet_potential import CHGNetPotential
from nucleate.energetics.relaxation import Relaxation, RelaxationSettings
from nucleate.energetics.symmetric_coordinates import SymmetricCoordinates
from nucleate.errors import NucleateError


def rattled_crystals(
    data: Path, count: int, *, seed: int, max_atoms: int, amplitude: float
) -> list[tuple[str, Crystal]]:
    table = pq.read_table(
        data / "mp_20.parquet",
        columns=["material_id", "numbers", "lattice", "frac_coords"],
        filters=[("pool", "=", "val")],
    ).to_pylist()
    rng = np.random.default_rng(seed)
    chosen: list[tuple[str, Crystal]] = []
    for index in rng.permutation(len(table)):
        row = table[index]
        cell = UnitCell(
            np.array(row["lattice"]).reshape(3, 3),
            np.array(row["frac_coords"]).reshape(-1, 3),
            np.array(row["numbers"], dtype=np.int64),
        )
        try:
            crystal = encode(cell).crystal
        except NucleateError:
            continue
        if crystal.num_atoms_primitive <= max_atoms:
            chosen.append((row["material_id"], rattle(crystal, rng, amplitude)))
        if len(chosen) == count:
            break
    return chosen


def rattle(crystal: Crystal, rng: np.random.Generator, amplitude: float) -> Crystal:
    """Moved inside its symmetry by ``amplitude`` Å on average over the atoms that can move, strained by 0.2 of that."""
    coordinates = SymmetricCoordinates(crystal)
    step = rng.normal(size=coordinates.num_variables)
    k = coordinates.num_lattice
    step[:k] *= 0.2 * amplitude
    if len(step) > k:
        moved, _ = coordinates.displacements(crystal, np.concatenate([np.zeros(k), step[k:]]))
        step[k:] *= amplitude / np.linalg.norm(moved, axis=1).mean()
    return coordinates.crystal(coordinates.vector(crystal) + step)


def cell_record(lattice: Any, frac_coords: Any, numbers: Any) -> dict[str, Any]:
    """A cell as it is kept in JSON, for ``begun_at``."""
    return {
        "lattice": np.asarray(lattice).tolist(),
        "frac_coords": np.asarray(frac_coords).tolist(),
        "numbers": np.asarray(numbers).tolist(),
    }


def begun_at(
    cells: list[dict[str, Any]], potential: CHGNetPotential, *, fmax: float, most: int
) -> list[Relaxation]:
    """Our relaxation begun where another one ended, each crystal in the group it has there."""
    starts = [
        encode(
            UnitCell(
                np.array(cell["lattice"]),
                np.array(cell["frac_coords"]),
                np.array(cell["numbers"], dtype=np.int64),
            )
        ).crystal
        for cell in cells
    ]
    return relax(starts, potential, settings=RelaxationSettings(fmax=fmax, max_evaluations=most))


def relax_with_ase(crystal: Crystal, calculator: Any, *, fmax: float, most: int) -> dict[str, Any]:
    from ase.constraints import FixSymmetry
    from ase.filters import FrechetCellFilter
    from ase.optimize import BFGS

    atoms = crystal.to_atoms("primitive")
    calls = 0
    calculate = calculator.calculate

    def counted(*arguments: Any, **options: Any) -> None:
        nonlocal calls
        calls += 1
        calculate(*arguments, **options)

    calculator.calculate = counted
    start = time.process_time()
    try:
        atoms.calc = calculator
        atoms.set_constraint(FixSymmetry(atoms, symprec=1e-3))
        converged = BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=fmax, steps=most)
        energy = float(atoms.get_potential_energy())
    finally:
        del calculator.calculate
    return {
        "energy": energy / len(atoms),
        "volume": atoms.get_volume() / len(atoms),
        "cell": cell_record(atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers),
        "evaluations": calls,
        "seconds": time.process_time() - start,
        "converged": bool(converged),
    }


def compare(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    from chgnet.model import CHGNetCalculator

    potential = CHGNetPotential()
    with contextlib.redirect_stdout(io.StringIO()):
        calculator = CHGNetCalculator(use_device="cpu", on_isolated_atoms="ignore")
    crystals = rattled_crystals(
        arguments.data, arguments.count, seed=arguments.seed, max_atoms=arguments.max_atoms, amplitude=0.1
    )
    settings = RelaxationSettings(fmax=arguments.fmax, max_evaluations=arguments.most)
    start = time.process_time()
    ours = relax([crystal for _, crystal in crystals], potential, settings=settings)
    seconds = time.process_time() - start
    done: dict[str, Any] = {}
    if arguments.out and arguments.out.exists():
        done = {row["id"]: row for row in map(json.loads, arguments.out.read_text().splitlines())}
    rows = []
    for (name, crystal), relaxation in zip(crystals, ours):
        theirs = done.get(name) or {
            "id": name,
            **relax_with_ase(crystal, calculator, fmax=arguments.fmax, most=arguments.most),
        }
        if arguments.out and name not in done:
            with arguments.out.open("a") as file:
                file.write(json.dumps(theirs) + "\n")
        rows.append(
            {
                "id": name,
                "group": crystal.space_group_number,
                "atoms": crystal.num_atoms_primitive,
                "variables": SymmetricCoordinates(crystal).num_variables,
                "ours": relaxation,
                "ase": theirs,
                "our_seconds": seconds,
            }
        )
    return rows


def report(rows: list[dict[str, Any]]) -> None:
    print(f"{'id':16s} group atoms vars  evaluations ours/ASE   E - E_ASE (meV/atom)  V/V_ASE  group found")
    for row in rows:
        mine, ase = row["ours"], row["ase"]
        print(
            f"{row['id']:16s} {row['group']:5d} {row['atoms']:5d} {row['variables']:4d}  "
            f"{mine.evaluations:4d} / {ase['evaluations']:4d}  "
            f"{1000 * (mine.energy_per_atom - ase['energy']):10.3f}  "
            f"{mine.crystal.volume_per_atom / ase['volume']:8.4f}  {mine.space_group_found}"
            f"{'' if mine.converged else '  ours: ' + mine.reason}{'' if ase['converged'] else '  ASE: not converged'}"
        )
    both = [row for row in rows if row["ours"].converged and row["ase"]["converged"]]
    difference = np.array([row["ours"].energy_per_atom - row["ase"]["energy"] for row in both])
    volume = np.array([row["ours"].crystal.volume_per_atom / row["ase"]["volume"] - 1 for row in both])
    mine = np.array([row["ours"].evaluations for row in rows])
    theirs = np.array([row["ase"]["evaluations"] for row in rows])
    seconds = sum(row["ase"]["seconds"] for row in rows)
    kept = [row["ours"].space_group_found == row["group"] for row in rows]
    print(
        f"\nn = {len(rows)}; converged: ours {sum(r['ours'].converged for r in rows)}, "
        f"ASE {sum(r['ase']['converged'] for r in rows)}"
    )
    print(
        f"energies within 1 meV/atom: {np.mean(np.abs(difference) < 1e-3):.3f} of {len(both)} "
        f"(ours lower in {int((difference < -1e-3).sum())}, higher in {int((difference > 1e-3).sum())})"
    )
    print(f"volumes within 0.5 %: {np.mean(np.abs(volume) < 0.005):.3f}")
    print(
        f"group found is the group relaxed in: {np.mean(kept):.3f} (every crystal has its group by construction)"
    )
    print(
        f"evaluations: ours {mine.sum()}, ASE {theirs.sum()}, ratio {mine.sum() / theirs.sum():.3f}, "
        f"median of ratios {np.median(mine / theirs):.3f}"
    )
    print(
        f"processor time: ours {rows[0]['our_seconds']:.1f} s, ASE {seconds:.1f} s, "
        f"ratio {rows[0]['our_seconds'] / seconds:.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fmax", type=float, default=0.02)
    parser.add_argument("--most", type=int, default=500)
    parser.add_argument("--max-atoms", type=int, default=20)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    report(compare(arguments))


if __name__ == "__main__":
    main()
