"""What each part of the geometry network and of its training is worth: small networks, equal minutes, two seeds.

Every arm is the same run (``nucleate.training.train``, geometry only) but for one thing, and is judged by the match
with the true template given on held-out MP-20 structures (pool ``val``), by free coordinates. Minutes are minutes:
an arm that costs more per step makes fewer steps. Runs are kept below ``--work`` and resumed; give each of two
processes its own arms and nothing else to do. The table is printed from all runs that are finished.

    python benchmarks/ablations.py --data DATA --work RUNS --minutes 30 --seeds 0 1 [--arms base p1 ...] [--table]
"""

from __future__ import annotations

import argparse
import json
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from data_pools import pool_store
from nucleate.crystal import Crystal, CrystalBatch
from nucleate.crystal.space_group import space_group
from nucleate.models.checkpoint import load_checkpoint
from nucleate.processes import choice
from nucleate.processes.geometry_flow import GeometryFlow
from nucleate.processes.geometry_process import LEVEL_FLOOR, GeometryNoise, NoisyGeometry
from nucleate.processes.wyckoff_torus import (
    cartesian_from_coords,
    coords_from_cartesian,
    log_map,
    without_drift,
)
from nucleate.training import crystal_stream, geometry_task, part_setup
from nucleate.training.config import TrainingConfig
from nucleate.training.train import train
from real_structures import describe_run, print_run, write_json
from template_match import draw, held_out, strata

SOURCES = ("mp_20", "mpts_52", "jarvis_dft3d", "wbm", "mp_40")
SMALL = {
    "geometry_scalars": 64,
    "geometry_vectors": 8,
    "geometry_hidden": 32,
    "geometry_layers": 3,
    "geometry_heads": 4,
    "geometry_num_basis": 16,
    "learning_rate": 2e-3,
    "batch_size": 64,
    "validate_every": 2000,
    "sample_crystals": 0,
    "keep": "last",
}


@dataclass(frozen=True)
class Arm:
    """One change against the base: settings, or a function put in the place of another while the arm is trained."""

    what: str
    settings: dict[str, Any] = field(default_factory=dict)
    patches: tuple[tuple[object, str, Any], ...] = ()
    in_p1: bool = False


def in_p1(crystals: list[Crystal]) -> list[Crystal]:
    """The same crystals as all atoms of their primitive cells in space group 1, in Niggli's cells.

    Of all primitive cells the reduced one: others spread the lattices of like crystals far apart, and the arm would be
    judged by the choice of cell.
    """
    subspace = space_group(1).lattice_subspace
    found = []
    for crystal in crystals:
        structure = crystal.to_structure("primitive").get_reduced_structure("niggli")
        numbers = np.array(structure.atomic_numbers, dtype=np.int64)
        lattice = subspace.fit(np.array(structure.lattice.matrix), num_atoms=len(numbers))
        coords = np.array(structure.frac_coords) % 1
        found.append(Crystal(1, lattice.params, np.zeros_like(numbers), numbers, coords))
    return found


def load_in_p1(*arguments: Any) -> crystal_stream.SourcedCrystals:
    """``load_crystals``, without symmetry."""
    content = LOAD(*arguments)
    return replace(
        content,
        crystals=CrystalBatch.from_crystals(in_p1(content.crystals.to_crystals()), dtype=torch.float32),
    )


class FractionalFlow(GeometryFlow):
    """Paths to the copy that is nearest in fractional coordinates, whatever the cell."""

    def corrupt(
        self, clean: CrystalBatch, coord_level: Any, lattice_level: Any, noise: GeometryNoise
    ) -> NoisyGeometry:
        """The crystals at the given noise levels."""
        noisy = super().corrupt(clean, coord_level, lattice_level, noise).crystals
        cubes = torch.eye(3).to(clean.lattice_params).expand(len(clean), 3, 3)
        path = without_drift(clean, log_map(clean, self.prior(clean, noise).free_coords, lattices=cubes))
        path = path * coord_level[clean.orbit_to_crystal][:, None]
        back = cartesian_from_coords(clean, -path, lattices=noisy.lattices())
        unit = (noisy.volume_per_atom ** (1 / 3))[clean.orbit_to_crystal][:, None]
        return NoisyGeometry(noisy.replace(free_coords=clean.free_coords + path), back / unit)


def fractional_losses(
    process: Any, guess: Any, noisy: NoisyGeometry, clean: CrystalBatch, coord_level: Any, lattice_level: Any
) -> tuple[Any, Any]:
    """``geometry_losses`` with the coordinates' error in fractions of the conventional cell."""
    _, lattice = LOSSES(process, guess, noisy, clean, coord_level, lattice_level)
    crystal = clean.orbit_to_crystal
    unit = (noisy.crystals.volume_per_atom ** (1 / 3))[crystal][:, None]
    error = (guess.displacements - noisy.displacements) * unit
    change = coords_from_cartesian(noisy.crystals, error, lattices=noisy.crystals.lattices())
    fractions = (clean.tables["basis"][clean.position_ids] @ change[:, :, None])[:, :, 0]
    share = clean.multiplicities.to(clean.dtype) / clean.num_atoms_primitive[crystal]
    squared = (fractions**2).sum(dim=1) * share * SQUARED_CELL
    coords = torch.zeros_like(coord_level).index_add_(0, crystal, squared.to(coord_level.dtype))
    return coords / (coord_level + LEVEL_FLOOR) ** 2, lattice


def unweighted_losses(
    process: Any, guess: Any, noisy: NoisyGeometry, clean: CrystalBatch, coord_level: Any, lattice_level: Any
) -> tuple[Any, Any]:
    """``geometry_losses`` in which every orbit counts the same, whatever its multiplicity."""
    _, lattice = LOSSES(process, guess, noisy, clean, coord_level, lattice_level)
    crystal = clean.orbit_to_crystal
    squared = ((guess.displacements - noisy.displacements) ** 2).sum(dim=1) / clean.num_orbits[crystal]
    squared = squared * (clean.num_free > 0)
    coords = torch.zeros_like(coord_level).index_add_(0, crystal, squared.to(coord_level.dtype))
    return coords / (coord_level + LEVEL_FLOOR) ** 2, lattice


LOAD, LOSSES = crystal_stream.load_crystals, geometry_task.geometry_losses
SQUARED_CELL = (
    6.0  # (cell length / (volume per atom)^(1/3))^2 of a crystal of some 15 atoms: keeps the loss's size
)

ARMS = {
    "base": Arm("orbits, Cartesian metric, flow matching, element vectors, adaptive radius"),
    "p1": Arm(
        "full cell in P1 instead of orbits",
        {"max_orbits": 60},
        ((crystal_stream, "load_crystals", load_in_p1), (part_setup, "load_crystals", load_in_p1)),
        in_p1=True,
    ),
    "fractional": Arm(
        "fractional instead of Cartesian metric",
        patches=(
            (choice, "PROCESSES", {**choice.PROCESSES, "flow": FractionalFlow}),
            (geometry_task, "geometry_losses", fractional_losses),
        ),
    ),
    "unweighted": Arm(
        "multiplicity weights off", patches=((geometry_task, "geometry_losses", unweighted_losses),)
    ),
    "reciprocal": Arm("with the reciprocal channel", {"geometry_reciprocal": 8}),
    "fixed radius": Arm("radius fixed at 6 Å", {"geometry_fixed_radius": 6.0}),
    "coarse": Arm("with the coarse levels", {"geometry_coarse": 32}),
    "tensors": Arm("with l = 2 features", {"geometry_tensors": 4}),
    "one-hot": Arm("element vectors one-hot", {"geometry_one_hot_elements": True}),
    "curriculum": Arm("with the curriculum", {"curriculum": True}),
    "diffusion": Arm("diffusion instead of flow", {"process": "diffusion"}),
    "muon": Arm("Muon instead of AdamW", {"optimiser": "muon"}),
    "distance": Arm("with the distance penalty", {"distance_weight": 0.1}),
    "volume": Arm("with the volume penalty", {"volume_weight": 0.1}),
    "density": Arm("with the density penalty", {"density_weight": 0.1}),
    "bond_valence": Arm("with the bond valence penalty", {"bond_valence_weight": 0.1}),
    "energy": Arm("with the energy penalty (repulsion)", {"energy_weight": 0.1}),
    "large": Arm(
        "1.97 M parameters, the sizes of the shipped weights",
        {
            "geometry_scalars": 96,
            "geometry_vectors": 16,
            "geometry_hidden": 192,
            "geometry_layers": 8,
            "geometry_num_basis": 24,
            "geometry_tensors": 4,
        },
    ),
}


def train_arm(arm: Arm, store: Path, out: Path, *, minutes: float, seed: int) -> Path:
    """The weights of an arm; a run that was stopped goes on."""
    settings = {**SMALL, **arm.settings, "part": "geometry", "minutes": minutes, "seed": seed}
    with ExitStack() as stack:
        for module, name, replacement in arm.patches:
            stack.enter_context(mock.patch.object(module, name, replacement))
        return train(store, TrainingConfig.from_flat(settings, where="the arm"), out=out).weights


def judge(arm: Arm, weights: Path, truth: list[Crystal], *, tries: int, steps: int) -> dict[str, Any]:
    """Match by free coordinates of the crystals (in their own space groups), and what training cost."""
    checkpoint = load_checkpoint(weights)
    templates = in_p1(truth) if arm.in_p1 else truth
    guesses = [
        draw(
            checkpoint, templates, settings={"steps": steps, "lattice_temperature": 0.5, "guidance": {}}, first=k,
            seed=0, random=False,
        )
        for k in range(tries)
    ]  # fmt: skip
    rows = strata(truth, guesses)
    return {"strata": rows, "cost": checkpoint.history.training["geometry"]}


def print_table(results: dict[str, dict[str, Any]]) -> None:
    """Every arm: mean over its seeds of the match per try, by free coordinates, and the steps it made."""
    names = list(next(iter(results.values()))["strata"])
    print(f"{'arm':14s}{'seeds':>6s}{'steps':>8s}" + "".join(f"{name:>8s}" for name in names))
    for arm in ARMS:
        mine = [value for key, value in results.items() if key.rsplit("-", 1)[0] == arm]
        if mine:
            steps = np.mean([one["cost"]["steps"] for one in mine])
            shares = [100 * np.mean([one["strata"][name]["per_try"] for one in mine]) for name in names]
            print(f"{arm:14s}{len(mine):6d}{steps:8.0f}" + "".join(f"{share:8.1f}" for share in shares))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--size", type=int, default=300, help="held-out structures")
    parser.add_argument("--tries", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--table", action="store_true", help="only print what is finished")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    run = describe_run(**vars(options))
    print_run(run)
    torch.set_num_threads(1)
    if not options.table:
        store = pool_store(options.data, options.work, train=SOURCES)
        truth = held_out(options.data, "val", options.size, 0)
        for seed in options.seeds:
            for name in options.arms:
                folder = options.work / f"{name.replace(' ', '-')}-{options.minutes:g}min-{seed}"
                if (folder / "match.json").exists():
                    continue
                weights = train_arm(ARMS[name], store, folder, minutes=options.minutes, seed=seed)
                found = judge(ARMS[name], weights, truth, tries=options.tries, steps=options.steps)
                write_json(folder / "match.json", {"arm": name, "seed": seed, **found})
                print(f"{name}, seed {seed}: {100 * found['strata']['0-999']['per_try']:.1f} %", flush=True)
    results = {}
    for path in sorted(options.work.glob(f"*-{options.minutes:g}min-*/match.json")):
        found = json.loads(path.read_text())
        results[f"{found['arm']}-{found['seed']}"] = found
    if results:
        print_table(results)
        write_json(options.out, {"run": run, "figures": results})


if __name__ == "__main__":
    main()
