"""Measure what a step of the geometry network costs against orbits, images and reciprocal stars.

Crystals are random and symmetric, one group and one composition of Wyckoff positions per row, so that the counts of
edges, atoms, stars and pairs are known; batch size and radius vary too, so that what a batch, a crystal, an orbit and
an edge cost can be told apart. The network has the sizes of the shipped weights, with one branch more or less in each
variant. Matrix products are counted twice: by torch, in a forward and backward pass, and by hand from the sizes of
the layers; bytes (what is read and written once if nothing stays in cache) by hand. The table prints them beside the
CPU time. A line fitted to the rows (non-negative least squares, one coefficient per term) says what each term costs,
and what share of each row's time no term explains.

Example: OMP_NUM_THREADS=1 python benchmarks/network_cost.py --repeats 5 --out cost.json --image cost.png
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.optimize import nnls
from torch.utils.flop_counter import FlopCounterMode

from nucleate.crystal import Crystal, CrystalBatch, space_group
from nucleate.models.checkpoint import default_weights, load_checkpoint
from nucleate.models.orbit_transformer import NoisyCrystals, OrbitTransformer, OrbitTransformerConfig
from real_structures import describe_run, print_run, write_json

VARIANTS: dict[str, dict[str, int]] = {
    "shipped": {},
    "without tensors": {"tensors": 0},
    "reciprocal": {"reciprocal": 8},
    "coarse": {"coarse": 32},
}
"""What each network has other than the shipped one."""


@dataclass(frozen=True)
class Row:
    """Crystals of one kind: orbits on the general position of a group (225: a special one), how many, how far seen."""

    group: int
    orbits: int
    batch: int = 16
    radius: float = 1.0
    """In units of the shipped network's radius."""


ROWS = [
    *(Row(1, n) for n in (1, 2, 4, 8, 16)),
    Row(2, 4),
    Row(14, 1),
    Row(14, 4),
    Row(62, 1),
    Row(62, 4),
    Row(166, 2),
    Row(225, 1),
    *(Row(group, 4, batch) for group in (1, 62) for batch in (2, 64)),
    *(Row(group, 4, radius=radius) for group in (1, 62) for radius in (0.8, 1.25)),
]
TERMS = ("crystals", "orbits", "atoms", "edges", "stars_images", "stars_orbits", "vectors", "candidates")


@cache
def shipped() -> OrbitTransformerConfig:
    """The sizes of the geometry network that comes with the package."""
    geometry = load_checkpoint(default_weights()).geometry
    assert geometry is not None
    return geometry.config


def network_of(variant: str, radius: float = 1.0) -> OrbitTransformer:
    """The network of a variant, with random weights and a radius in units of the shipped one's."""
    torch.manual_seed(0)
    return OrbitTransformer(replace(shipped(), radius=radius * shipped().radius, **VARIANTS[variant]))


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
    surroundings = network._surroundings(batch, network.neighbours(batch), None)
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


def operations_and_bytes(config: OrbitTransformerConfig, n: Mapping[str, int]) -> tuple[float, float]:
    """Floating-point operations in matrix products, and bytes, of a forward and backward pass, counted by hand.

    A backward pass costs twice the forward pass in linear layers and moves as much again. Per layer, with s, v, h, b
    the widths of scalars, vectors, edge network and radial basis, r the charges, w the coarse width, t the tensors:

        edge    2 [ (b + 2v + 2t) h + h (h + 2v + 2t + heads) + heads (v + t) ]
        orbit   2 [ 3 s h + 9 v^2 + 2 (s + 2v) 2s ]
        tensor  orbit 2 [ 5 t^2 + 10 t^2 + 6 v t + (s + 3t) s + 3 s t + s^2 ]
        atom    2 [ 9 v + 25 t ],   star 2 [ 24 r ],   orbit 2 [ s r + r s + 3 r v ] with stars
        coarse  orbit 2 [ 3 s w + 4 w^2 + w s ]

    and once per edge the sum that becomes the stress, ``(2s + b + ...) h``.
    """
    c = config
    s, v, h, r, w, t = c.scalars, c.vectors, c.hidden, c.reciprocal, c.coarse, c.tensors
    b = 2 * c.num_basis + 1
    edge = (b + 2 * v + 2 * t) * h + h * (h + 2 * v + 2 * t + c.heads) + c.heads * (v + t)
    orbit = 3 * s * h + 9 * v * v + 4 * (s + 2 * v) * s
    orbit += (15 * t * t + 6 * v * t + (s + 3 * t) * s + 3 * s * t + s * s) if t else 0
    orbit += (2 * s * r + 3 * r * v if r else 0) + (4 * s * w + 4 * w * w if w else 0)
    work = n["edges"] * edge + n["orbits"] * orbit + n["atoms"] * (9 * v + 25 * t) + n["stars"] * 24 * r
    products = 3 * 2 * (c.layers * work + n["edges"] * ((2 * s + b) * h + h))
    floats = n["edges"] * (b + 4 * h + 14 * v + 3 * c.heads + 22 * t) + n["orbits"] * (8 * s + 12 * v)
    floats += n["stars_orbits"] * (10 * r + 8) + n["stars"] * 12 * r + n["bonds"] * 6 * w
    moved = c.layers * floats + 24 * n["stars_images"] + 40 * n["vectors"] + 12 * n["candidates"]
    return products, 3 * 4 * moved


def one_pass(network: OrbitTransformer, batch: CrystalBatch) -> None:
    """A forward and backward pass."""
    n = len(batch)
    level = torch.full((n,), 0.5)
    out = network(NoisyCrystals(batch, level, level, torch.zeros(n, dtype=torch.int64)))
    (out.displacements.square().sum() + out.lattice_params.square().sum()).backward()
    network.zero_grad(set_to_none=True)


def counted_operations(network: OrbitTransformer, batch: CrystalBatch) -> int:
    """Floating-point operations in matrix products of a forward and backward pass, as torch counts them."""
    with FlopCounterMode(display=False) as counter:
        one_pass(network, batch)
    return counter.get_total_flops()


def seconds(network: OrbitTransformer, batch: CrystalBatch, repeats: int) -> float:
    """CPU time of the fastest forward and backward pass."""
    best = np.inf
    for _ in range(repeats + 1):
        start = time.process_time()
        one_pass(network, batch)
        best = min(best, time.process_time() - start)
    return best


def measure(variant: str, row: Row, repeats: int) -> dict[str, Any]:
    """Counts, operations and seconds of one row."""
    network, batch = network_of(variant, row.radius), crystals(row.group, row.orbits, row.batch)
    n = counts(network, batch)
    by_hand, moved = operations_and_bytes(network.config, n)
    return {
        "variant": variant,
        "group": row.group,
        "orbits_each": row.orbits,
        "radius": row.radius,
        **n,
        "seconds": seconds(network, batch, repeats),
        "flop": counted_operations(network, batch),
        "flop_by_hand": by_hand,
        "bytes": moved,
    }


def explain(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Seconds of each term, what they make of each row ("fitted"), and the share that none explains, printed."""
    used = [term for term in TERMS if any(row[term] for row in rows)]
    matrix = np.array([[1.0, *(row[term] for term in used)] for row in rows])
    spent = np.array([row["seconds"] for row in rows])
    weights = 1 / spent  # relative errors: small rows count as much as large ones
    cost, _ = nnls(matrix * weights[:, None], spent * weights)
    for row, fitted in zip(rows, matrix @ cost):
        row["fitted"] = float(fitted)
    left = matrix @ cost / spent - 1
    found = {term: float(x) for term, x in zip(("batch", *used), cost) if x > 0}
    print("fit: " + ", ".join(f"{x * 1e6:.3g} us per {term}" for term, x in found.items()))
    print(
        f"unexplained: {100 * np.abs(left).max():.0f} % at most, {100 * np.sqrt((left**2).mean()):.0f} % rms"
    )
    return found


def plot(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Time against orbits (group 1), images (four orbits) and star x orbit pairs: measured and fitted."""
    plain = [row for row in rows if row["radius"] == 1 and row["crystals"] == 16]
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = (
        ("orbits per crystal (group 1)", "orbits", lambda row: row["group"] == 1),
        ("images per crystal (four orbits)", "atoms", lambda row: row["orbits_each"] == 4),
        ("pairs of star and orbit per crystal", "stars_orbits", lambda row: row["stars_orbits"] > 0),
    )
    for ax, (title, term, shown) in zip(figure.subplots(1, 3), panels):
        for color, variant in zip(("C0", "C1", "C2", "C3"), dict.fromkeys(row["variant"] for row in plain)):
            mine = sorted(
                (row for row in plain if row["variant"] == variant and shown(row)), key=lambda row: row[term]
            )
            x = [row[term] / row["crystals"] for row in mine]
            ax.plot(x, [1e3 * row["seconds"] / row["crystals"] for row in mine], "o", color=color)
            ax.plot(
                x, [1e3 * row["fitted"] / row["crystals"] for row in mine], "-", color=color, label=variant
            )
        ax.set_xlabel(title)
        ax.set_ylim(0)
        ax.set_xlim(0)
    figure.axes[0].set_ylabel("ms per crystal, forward and backward")
    figure.axes[0].legend(frameon=False, title="points measured, lines fitted", fontsize="small")
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--out", type=Path, default=None, help="JSON file for the rows")
    parser.add_argument("--image", type=Path, default=None, help="PNG of the curves")
    given = parser.parse_args()
    run = describe_run(**vars(given))
    print_run(run)
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    fits = {}
    for name in given.variants:
        print(f"\n{name}: {sum(p.numel() for p in network_of(name).parameters())} parameters")
        print(
            "group orbits batch radius atoms  edges stars st.x.im st.x.orb | ms/crystal Mflop by hand  MB Gflop/s"
        )
        mine = []
        for kind in ROWS:
            row = measure(name, kind, given.repeats)
            mine.append(row)
            per = kind.batch
            print(
                f"{kind.group:5d} {kind.orbits:6d} {per:5d} {kind.radius:6.2f} {row['atoms'] / per:5.0f} "
                f"{row['edges'] / per:6.0f} {row['stars'] / per:5.0f} {row['stars_images'] / per:7.0f} "
                f"{row['stars_orbits'] / per:8.0f} | {1e3 * row['seconds'] / per:10.2f} {row['flop'] / per / 1e6:5.0f} "
                f"{row['flop_by_hand'] / per / 1e6:7.0f} {row['bytes'] / per / 1e6:3.0f} "
                f"{row['flop'] / row['seconds'] / 1e9:7.1f}",
                flush=True,
            )
        fits[name] = explain(mine)
        rows += mine
    if given.image is not None:
        plot(rows, given.image)
    write_json(given.out, {"run": run, "sizes": str(shipped()), "fits": fits, "rows": rows})


if __name__ == "__main__":
    main()
