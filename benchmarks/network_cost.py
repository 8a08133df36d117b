"""Measure what a step of the geometry network costs against orbits, images and reciprocal stars.

Crystals are random and symmetric, one group and one composition of Wyckoff positions per row, so that the counts of
edges, atoms, stars and pairs are known. Operations (multiply-adds, counted twice) and bytes (what has to be read and
written once if nothing stays in cache) are counted by hand from those numbers and the sizes of the layers; the table
prints them beside the CPU time of a forward and backward pass. A line fitted to the rows (non-negative least squares,
one coefficient per term) says what a crystal, an orbit, an edge, a star x image and a star x orbit cost, and what share
of each row's time no term explains.

Example: OMP_NUM_THREADS=1 python benchmarks/network_cost.py --repeats 5 --out cost.json
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import nnls

from nucleate.crystal import Crystal, CrystalBatch, space_group
from nucleate.models.orbit_transformer import NoisyCrystals, OrbitTransformer, OrbitTransformerConfig

BASE = OrbitTransformerConfig(scalars=96, vectors=16, hidden=64, layers=4, heads=4, num_basis=24)
VARIANTS = {
    "base": BASE,
    "reciprocal": replace(BASE, reciprocal=8),
    "coarse": replace(BASE, coarse=32),
    "tensors": replace(BASE, tensors=4),
}
# (group, number of orbits on its general position): orbits at one image each, then images, then stars
ROWS = [
    (1, 1),
    (1, 2),
    (1, 4),
    (1, 8),
    (1, 16),
    (2, 4),
    (14, 1),
    (14, 4),
    (62, 1),
    (62, 4),
    (166, 2),
    (225, 1),
]
TERMS = ("crystals", "orbits", "atoms", "edges", "stars_images", "stars_orbits", "vectors", "candidates")


def crystals(number: int, orbits: int, count: int) -> CrystalBatch:
    """Random crystals with orbits on the general position (group 225: on its third most special one)."""
    rng = np.random.default_rng([number, orbits])
    group = space_group(number)
    order = np.argsort([p.multiplicity for p in group.wyckoff_positions], kind="stable")
    letter = int(order[-1]) if number != 225 else int(order[min(4, len(order) - 1)])
    found = []
    for _ in range(count):
        params = rng.normal(0, 0.05, group.lattice_subspace.num_params)
        params[0] = np.log(16.0) / 3**0.5
        free = np.zeros((orbits, 3))
        free[:, : group.wyckoff_positions[letter].num_free] = rng.uniform(
            0.03, 0.47, (orbits, group.wyckoff_positions[letter].num_free)
        )
        letters = np.full(orbits, letter)
        found.append(Crystal(number, params, letters, rng.integers(3, 80, orbits), free))
    return CrystalBatch.from_crystals(found, dtype=torch.float32)


def counts(network: OrbitTransformer, batch: CrystalBatch) -> dict[str, int]:
    """How many of everything a batch has; what the network does not use counts 0."""
    surroundings = network._surroundings(batch, batch.atoms())
    stars, levels = surroundings.stars, surroundings.levels
    atoms = batch.num_atoms_primitive
    radius = network.config.reciprocal_radius
    sphere = 4 / 3 * np.pi * radius**3 * int(atoms.sum()) / 2
    limit = network.config.radius * batch.volume_per_atom ** (1 / 3)
    spacing = 1 / torch.linalg.vector_norm(torch.linalg.inv(batch.primitive_lattices()), dim=1)
    translations = (2 * torch.floor(limit[:, None] / spacing + 0.5) + 1).prod(dim=1)
    return {
        "crystals": len(batch),
        "orbits": len(batch.position_ids),
        "atoms": int(atoms.sum()),
        "edges": len(surroundings.edges.target),
        "stars": 0 if stars is None else len(stars.crystal),
        "stars_images": 0 if stars is None else int(atoms[stars.crystal].sum()),
        "stars_orbits": 0 if stars is None else len(stars.star),
        "vectors": 0 if stars is None else round(sphere),
        "candidates": int((batch.num_orbits * atoms * translations).sum()),
        "bonds": 0 if levels is None else len(levels.centre),
    }


def operations_and_bytes(config: OrbitTransformerConfig, n: dict[str, int]) -> tuple[float, float]:
    """Floating-point operations and bytes of a forward and backward pass, counted by hand.

    A backward pass costs twice the forward pass in linear layers and moves as much again. Per layer, with s, v, h, b
    the widths of scalars, vectors, edge network and radial basis, r the charges, w the coarse width, t the tensors:

        edge    2 [ (b + 2v) h + h (h + 2v) + h heads + 3 * 2v (dots) + 3 * 2v (messages) ]
        orbit   2 [ 2 s h + h s + (s + 2v) 2s + 2s (s + 2v) + 3 (v v + 2 v v) ]
        stars   2 [ 12 * 2r ],   star x orbit 2 [ 2r + 2r + 6r ]
        tensor  edge 2 [ 2t h + h 2t + 5 * 2t + 5 * 2t ]
        coarse  bond 2 [ 5 w ], orbit 2 [ 4 s w + 8 w w ]
    """
    c = config
    s, v, h, r, w, t = c.scalars, c.vectors, c.hidden, c.reciprocal, c.coarse, c.tensors
    b = 2 * c.num_basis + 1
    edge = (b + 2 * v) * h + h * (h + 2 * v) + h * c.heads + 12 * v + (4 * t * h + 20 * t)
    orbit = 3 * s * h + 2 * (s + 2 * v) * 2 * s + 9 * v * v + 12 * s * s / 6
    orbit += (4 * s * w + 8 * w * w) + (r * s * 2 + 3 * r * v if r else 0) + (s + 3 * t) * s * (2 if t else 0)
    work = n["edges"] * edge + n["orbits"] * orbit + n["stars"] * 24 * r + n["stars_orbits"] * 10 * r
    work += n["bonds"] * 5 * w
    per_forward = 2 * c.layers * work + 2 * n["edges"] * ((2 * s + b) * h + h)
    per_forward += 40 * n["stars_images"] + 80 * n["vectors"] + 30 * n["candidates"]
    floats = n["edges"] * (b + 2 * v + 4 * h + 8 * v + c.heads * 3 + 22 * t) + n["orbits"] * (8 * s + 12 * v)
    floats += n["stars_orbits"] * (2 * r + 8 + 4 * r + 4 * r) + n["stars"] * 12 * r + n["bonds"] * 6 * w
    moved = c.layers * floats + 24 * n["stars_images"] + 80 * n["vectors"] / 2 + 12 * n["candidates"]
    return 3 * per_forward, 3 * 4 * moved


def seconds(network: OrbitTransformer, batch: CrystalBatch, repeats: int) -> float:
    """CPU time of the fastest forward and backward pass."""
    n = len(batch)
    time_now = torch.full((n,), 0.5)
    noisy = NoisyCrystals(batch, time_now, time_now, torch.zeros(n, dtype=torch.int64))
    best = np.inf
    for _ in range(repeats + 1):
        start = time.process_time()
        out = network(noisy)
        (out.displacements.square().sum() + out.lattice_params.square().sum()).backward()
        best = min(best, time.process_time() - start)
        network.zero_grad(set_to_none=True)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=32, help="crystals per batch")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--out", type=Path, default=None, help="JSON file for the rows")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in given.variants:
        torch.manual_seed(0)
        network = OrbitTransformer(VARIANTS[name])
        print(f"\n{name}: {sum(p.numel() for p in network.parameters())} parameters, batch {given.batch}")
        print("group orbits atoms  edges  stars st.x.im st.x.orb | ms/crystal  Mflop    MB  Gflop/s  GB/s")
        mine = []
        for number, orbits in ROWS:
            batch = crystals(number, orbits, given.batch)
            n = counts(network, batch)
            spent = seconds(network, batch, given.repeats)
            work, moved = operations_and_bytes(VARIANTS[name], n)
            row = {"variant": name, "group": number, **n, "seconds": spent, "flop": work, "bytes": moved}
            mine.append(row)
            per = given.batch
            print(
                f"{number:5d} {orbits:6d} {n['atoms'] / per:5.0f} {n['edges'] / per:6.0f} {n['stars'] / per:6.0f} "
                f"{n['stars_images'] / per:7.0f} {n['stars_orbits'] / per:8.0f} | {1e3 * spent / per:10.3f} "
                f"{work / per / 1e6:6.2f} {moved / per / 1e6:5.2f} "
                f"{work / spent / 1e9:8.2f} {moved / spent / 1e9:5.2f}",
                flush=True,
            )
        explain(mine)
        rows += mine
    if given.out is not None:
        given.out.write_text(json.dumps({"base": str(BASE), "rows": rows}, indent=1))


def explain(rows: list[dict]) -> None:
    """Print the cost of each term and the largest share of a row that none explains."""
    used = [term for term in TERMS if any(row[term] for row in rows)]
    matrix = np.array([[1.0, *(row[term] for term in used)] for row in rows])
    spent = np.array([row["seconds"] for row in rows])
    weights = 1 / spent  # relative errors: small rows count as much as large ones
    cost, _ = nnls(matrix * weights[:, None], spent * weights)
    left = matrix @ cost / spent - 1
    terms = ", ".join(f"{x * 1e6:.3g} us per {term}" for term, x in zip(("batch", *used), cost) if x > 0)
    print(f"fit: {terms}")
    print(
        f"unexplained: {100 * np.abs(left).max():.0f} % at most, {100 * np.sqrt((left**2).mean()):.0f} % rms"
    )


if __name__ == "__main__":
    main()
