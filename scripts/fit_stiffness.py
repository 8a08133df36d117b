"""Writes src/nucleate/energetics/tables/stiffness.json: springs between neighbours, fitted to CHGNet.

    python scripts/fit_stiffness.py --data ../shared/data

Second derivatives of CHGNet along random motions inside the symmetry (of the volume, of the cell, of the free
coordinates) in relaxed crystals of the train pool; log-curvatures are fitted by least absolute deviations, nine tenths
of the crystals for the fit and the rest to print how well it does. Five minutes on one core.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from nucleate.crystal import Crystal, UnitCell, encode
from nucleate.energetics.chgnet_potential import CHGNetPotential
from nucleate.energetics.potential import Evaluation, evaluate_each
from nucleate.energetics.stiffness import SpringNetwork
from nucleate.energetics.symmetric_coordinates import SymmetricCoordinates
from nucleate.errors import NucleateError
from structure_pool import PoolStructure, read_pool

OUTPUT = Path(__file__).resolve().parents[1] / "src" / "nucleate" / "energetics" / "tables" / "stiffness.json"
MAX_ATOMS = 16
PER_ELEMENT = 14
STRAIN = 0.005
SHIFT = 0.03  # Å


def choose(structures: list[PoolStructure], count: int, rng: np.random.Generator) -> list[PoolStructure]:
    """Small crystals in random order: every element some times, then whatever comes, up to ``count``."""
    order = [structures[i] for i in rng.permutation(len(structures))]
    small = [s for s in order if len(s.atomic_numbers) <= 2 * MAX_ATOMS]
    seen: Counter[int] = Counter()
    chosen, rest = [], []
    for structure in small:
        elements = set(structure.atomic_numbers.tolist())
        if min(seen[z] for z in elements) < PER_ELEMENT:
            seen.update(elements)
            chosen.append(structure)
        else:
            rest.append(structure)
    return (chosen + rest)[:count]


def motions(
    coordinates: SymmetricCoordinates, crystal: Crystal, rng: np.random.Generator
) -> list[np.ndarray]:
    """Small steps in x: of the volume, of the shape of the cell, of the free coordinates."""
    k, n = coordinates.num_lattice, coordinates.num_variables
    steps = [np.eye(n)[0] * STRAIN]
    if k > 1:
        direction = np.concatenate([rng.normal(size=k), np.zeros(n - k)])
        steps.append(STRAIN * direction / np.linalg.norm(direction))
    for _ in range(min(n - k, 2)):
        direction = np.concatenate([np.zeros(k), rng.normal(size=n - k)])
        moved, _ = coordinates.displacements(crystal, direction)
        steps.append(SHIFT * direction / np.linalg.norm(moved, axis=1).max())
    return steps


def observations(structures: list[PoolStructure], rng: np.random.Generator) -> list[dict[str, np.ndarray]]:
    """Curvature along each motion, with the squared changes of all springs along it."""
    potential = CHGNetPotential()
    found = []
    for structure in structures:
        cell = UnitCell(structure.lattice, structure.frac_coords, structure.atomic_numbers)
        try:
            crystal = encode(cell).crystal
        except NucleateError:
            continue
        if crystal.num_atoms_primitive > MAX_ATOMS:
            continue
        coordinates = SymmetricCoordinates(crystal)
        x = coordinates.vector(crystal)
        steps = motions(coordinates, crystal, rng)
        crystals = [crystal, *(coordinates.crystal(x + step) for step in steps)]
        evaluations = evaluate_each(potential, [c.unit_cell("primitive") for c in crystals])
        if any(e.problem for e in evaluations):
            continue
        network = SpringNetwork(coordinates, crystal)
        found += [
            observation(coordinates, network, step, crystals, evaluations, i)
            for i, step in enumerate(steps, start=1)
        ]
    return found


def observation(
    coordinates: SymmetricCoordinates,
    network: SpringNetwork,
    step: np.ndarray,
    crystals: list[Crystal],
    evaluations: list[Evaluation],
    index: int,
) -> dict[str, np.ndarray]:
    change = coordinates.gradient(crystals[index], evaluations[index])
    change -= coordinates.gradient(crystals[0], evaluations[0])
    return {
        "curvature": np.array(change @ step),
        "first": network.first,
        "second": network.second,
        "ratio": network.ratio,
        "along": network.weight * (network.longitudinal @ step) ** 2,
        "across": network.weight * ((network.transverse @ step).reshape(-1, 3) ** 2).sum(axis=1),
        "of_cell": np.array(float(np.any(step[: coordinates.num_lattice]))),
    }


def fit(data: list[dict[str, np.ndarray]]) -> tuple[dict[str, list[float]], np.ndarray]:
    """(coefficients, log(model / CHGNet) of every observation)."""
    flat = {
        key: torch.tensor(np.concatenate([d[key] for d in data]))
        for key in ("first", "second", "ratio", "along", "across")
    }
    owner = torch.repeat_interleave(torch.arange(len(data)), torch.tensor([len(d["first"]) for d in data]))
    target = torch.tensor([float(d["curvature"]) for d in data]).log()
    along = torch.tensor([1.5, -5.0, 0.0], dtype=torch.float64, requires_grad=True)
    across = torch.tensor([-1.5, -5.0, 0.0], dtype=torch.float64, requires_grad=True)
    elements = torch.zeros(103, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([along, across, elements], max_iter=400, line_search_fn="strong_wolfe")
    held_out = torch.rand(len(data), generator=torch.Generator().manual_seed(0)) < 0.1

    def residuals() -> torch.Tensor:
        s = flat["ratio"] - 1
        pair = (elements[flat["first"] - 1] + elements[flat["second"] - 1]) / 2
        value = flat["along"] * torch.exp(pair + along[0] + along[1] * s + along[2] * s**2)
        value = value + flat["across"] * torch.exp(pair + across[0] + across[1] * s + across[2] * s**2)
        return torch.zeros(len(data), dtype=torch.float64).index_add(0, owner, value).log() - target

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = torch.nn.functional.huber_loss(
            residuals()[~held_out], torch.zeros(int((~held_out).sum()), dtype=torch.float64), delta=0.3
        )
        loss = loss + 1e-4 * (elements**2).mean()
        loss.backward()
        return loss

    optimiser.step(closure)
    table = {
        "longitudinal": [round(v, 4) for v in along.tolist()],
        "transverse": [round(v, 4) for v in across.tolist()],
        "elements": [round(v, 3) for v in elements.tolist()],
    }
    final = residuals().detach().numpy()
    for name, rows in (("fit", ~held_out), ("held out", held_out)):
        cell = np.array([bool(d["of_cell"]) for d in data])
        for kind, of_kind in (("cell", cell), ("coordinates", ~cell)):
            chosen = final[rows.numpy() & of_kind]
            low, middle, high = np.exp(np.percentile(chosen, [10, 50, 90]))
            print(
                f"{name:9s} {kind:12s} n = {len(chosen):5d}  model / CHGNet {low:.2f} {middle:.2f} {high:.2f}"
            )
    return table, final


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--count", type=int, default=1400)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    structures = choose(read_pool(arguments.data, "train"), arguments.count, rng)
    data = observations(structures, rng)
    stiff = [d for d in data if d["curvature"] > 0 and (d["along"].sum() + d["across"].sum()) > 0]
    print(
        f"{len(structures)} crystals, {len(data)} motions, {len(data) - len(stiff)} of negative curvature left out"
    )
    table, _ = fit(stiff)
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
