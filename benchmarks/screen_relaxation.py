"""The step ``relax`` of the funnel against ASE on real crystals: energies, volumes, groups, evaluations, wall time.

    python benchmarks/screen_relaxation.py --data ../shared/data --count 300 --processes 2 --out relaxations

Crystals, rattling, thresholds and ASE's side are those of ``benchmarks/relaxation.py``: FrechetCellFilter, FixSymmetry,
BFGS, the same potential. Both sides work with the same number of processes, one after the other on the same machine,
and the wall time includes the start of the processes and the loading of the potential. Crystals that ended in another
basin are listed with which side is lower. Where volumes differ, ours is begun once more at the crystal ASE ended with:
if it stays there, both ends are minima by the same criterion (two minima, or one that is flat along the volume, which
the difference of the energies tells), and if it leaves, one side had not arrived. What ASE found is kept crystal by
crystal in ``--out``; a wall time is reported only where all of a side was done in this run.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from nucleate.crystal import Crystal
from nucleate.energetics.chgnet_potential import CHGNetPotential
from nucleate.evaluation.workers import Workers
from nucleate.screening.funnel import screen
from nucleate.screening.settings import ScreeningSettings
from relaxation import begun_at, rattled_crystals, relax_with_ase

BASIN = 1e-3
"""eV/atom: further apart are two basins."""

SAME_VOLUME = 5e-3

_calculator: Any = None


def ase_side(name: str, crystal: Crystal, fmax: float, most: int) -> dict[str, Any]:
    global _calculator
    if _calculator is None:
        from chgnet.model import CHGNetCalculator

        torch.set_num_threads(1)
        warnings.filterwarnings("ignore")
        with contextlib.redirect_stdout(io.StringIO()):
            _calculator = CHGNetCalculator(use_device="cpu", on_isolated_atoms="ignore")
    return {"id": name, **relax_with_ase(crystal, _calculator, fmax=fmax, most=most)}


def run_ase(
    crystals: list[tuple[str, Crystal]], arguments: argparse.Namespace
) -> tuple[dict[str, Any], float | None]:
    """What ASE found by id, and the wall time where nothing was there before."""
    file = arguments.out / "ase.jsonl"
    done = {row["id"]: row for row in map(json.loads, file.read_text().splitlines())} if file.exists() else {}
    left = [(name, crystal) for name, crystal in crystals if name not in done]
    whole = len(left) == len(crystals)
    start = time.perf_counter()
    with ProcessPoolExecutor(arguments.processes, mp_context=get_context("spawn")) as pool:
        jobs = [
            pool.submit(ase_side, name, crystal, arguments.fmax, arguments.most) for name, crystal in left
        ]
        for job in as_completed(jobs):
            row = job.result()
            done[row["id"]] = row
            with file.open("a") as target:
                target.write(json.dumps(row) + "\n")
    return done, time.perf_counter() - start if whole else None


def run_ours(
    crystals: list[tuple[str, Crystal]], arguments: argparse.Namespace
) -> tuple[dict[str, Any], float | None]:
    """Rows of the screening's table by id, and the wall time where nothing was there before."""
    settings = ScreeningSettings.of(
        ["relax"],
        [f"relax.fmax={arguments.fmax}", f"relax.max_evaluations={arguments.most}", "relax.check=false"],
    )
    with Workers(arguments.processes) as workers:
        report = screen([c for _, c in crystals], arguments.out / "screened", settings, workers=workers)
    rows = pq.read_table(report.out / "crystals.parquet").to_pylist()
    found = {name: row for (name, _), row in zip(crystals, rows)}
    return found, None if report.num_known else report.seconds


def report(crystals: list[tuple[str, Crystal]], ours: dict[str, Any], ase: dict[str, Any]) -> list[str]:
    """Prints the comparison; the crystals that both sides converged."""
    both = [name for name, _ in crystals if ours[name]["status"] == "passed" and ase[name]["converged"]]
    energy = np.array([ours[n]["energy_per_atom"] - ase[n]["energy"] for n in both])
    volume = np.array([ours[n]["volume_per_atom"] / ase[n]["volume"] - 1 for n in both])
    groups = {name: crystal.space_group_number for name, crystal in crystals}
    kept = [ours[n]["relaxed_space_group"] == groups[n] for n in both]
    # A crystal whose free coordinates came to a more symmetric place has its group and more.
    same = np.abs(energy) < BASIN
    print(f"n = {len(crystals)}; converged: ours {sum(r['status'] == 'passed' for r in ours.values())}, "
          f"ASE {sum(ase[n]['converged'] for n, _ in crystals)}; both {len(both)}")  # fmt: skip
    near = np.abs(volume) < SAME_VOLUME
    print(f"energies within 1 meV/atom: {same.mean():.3f}; volumes within 0.5 %: {near.mean():.3f} "
          f"(of those in the same basin {near[same].mean():.3f})")  # fmt: skip
    print(f"group found at 0.01 Å is the group it had: {np.mean(kept):.3f}")
    for name, difference, found in zip(both, energy, kept):
        if abs(difference) >= BASIN or not found:
            lower = "ours" if difference < 0 else "ASE"
            print(f"  {name}: E - E_ASE = {1000 * difference:+.2f} meV/atom ({lower} lower), group {groups[name]}, "
                  f"found {ours[name]['relaxed_space_group']}")  # fmt: skip
    for name, _ in crystals:
        if name not in both:
            print(
                f"  {name}: ours {ours[name]['relaxation']}; ASE {'converged' if ase[name]['converged'] else 'not'}"
            )
    mine = np.array([ours[name]["relaxation_evaluations"] for name, _ in crystals])
    theirs = np.array([ase[name]["evaluations"] for name, _ in crystals])
    print(f"evaluations: ours {mine.sum()}, ASE {theirs.sum()}, ratio {mine.sum() / theirs.sum():.3f}")
    return both


def report_volumes(
    ours: dict[str, Any], ase: dict[str, Any], names: list[str], fmax: float, most: int
) -> None:
    """The crystals whose volumes differ, and whether ours stays where ASE ended."""
    apart = [n for n in names if abs(ours[n]["volume_per_atom"] / ase[n]["volume"] - 1) >= SAME_VOLUME]
    restarted = begun_at([ase[name]["cell"] for name in apart], CHGNetPotential(), fmax=fmax, most=most)
    stay = 0
    for name, again in zip(apart, restarted):
        first, theirs = ours[name], ase[name]
        moved = again.crystal.volume_per_atom / theirs["volume"] - 1
        stay += again.converged and abs(moved) < SAME_VOLUME
        print(
            f"  {name}: V / V_ASE - 1 = {100 * (first['volume_per_atom'] / theirs['volume'] - 1):+.2f} %, "
            f"E - E_ASE = {1000 * (first['energy_per_atom'] - theirs['energy']):+.3f} meV/atom; begun at ASE's end: "
            f"{100 * moved:+.2f} %, {1000 * (again.energy_per_atom - theirs['energy']):+.3f} meV/atom, {again.reason}"
        )
    print(
        f"volumes: {len(apart)} of {len(names)} differ by 0.5 % or more; ours stays at ASE's end in {stay} of them"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fmax", type=float, default=0.02)
    parser.add_argument("--most", type=int, default=500)
    parser.add_argument("--max-atoms", type=int, default=20)
    parser.add_argument("--amplitude", type=float, default=0.1, help="Å; see relaxation.rattle")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    crystals = rattled_crystals(
        arguments.data,
        arguments.count,
        seed=arguments.seed,
        max_atoms=arguments.max_atoms,
        amplitude=arguments.amplitude,
    )
    ours, our_seconds = run_ours(crystals, arguments)
    ase, ase_seconds = run_ase(crystals, arguments)
    both = report(crystals, ours, ase)
    report_volumes(ours, ase, both, arguments.fmax, arguments.most)
    if our_seconds is not None and ase_seconds is not None:
        print(
            f"wall time: ours {our_seconds:.1f} s, ASE {ase_seconds:.1f} s, ratio {our_seconds / ase_seconds:.3f}"
        )


if __name__ == "__main__":
    main()
