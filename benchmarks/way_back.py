"""Sites, vectors and tensors of real structures and their copies, encoded and returned; keys of the copies.

Each structure is encoded as it is (raw) and after one decoding (ideal: exactly symmetric). Copies of both:
a supercell, a rotated frame, shifted origin with atoms in other cells, a left-handed basis, another basis,
permuted atoms, and all of these at once. For each copy:

- sites: largest distance between the copy and its decoded form, both in the copy's cell. Ideal: 1e-6 Å.
  Raw: no more than the projection displacement the encoding reports plus what the strain moves them;
- vectors: a random vector per atom and one random rank-2 tensor go to the standard frame and return;
  there, their products with the standard setting's own distances (``v . d``, ``d T d``) must be the
  products in the user's frame, so that a wrong frame cannot pass;
- forces: a pair force computed from the copy (it has the crystal's symmetry) must survive the reduction to
  one vector per orbit; its random counterpart must not (the negative control);
- keys: prototype_key, bucket_key and handedness equal; canonical encodings equal; the mirror image has
  equal keys and the opposite handedness.

Example: python benchmarks/way_back.py --data ../shared/data --out way_back.json
"""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list
from scipy.spatial.transform import Rotation

from nucleate.crystal import Crystal, EncodedStructure, UnitCell, encode
from nucleate.errors import NucleateError
from real_structures import describe_run, print_run, sample_structures, write_json

FORCE_CUTOFF = 4.5  # Å
TOLERANCE = 1e-6


def change_basis(cell: UnitCell, matrix: np.ndarray) -> UnitCell:
    """The same crystal with lattice rows ``M A``; a supercell where |det M| > 1."""
    copies = round(abs(np.linalg.det(matrix)))
    to_new = np.linalg.inv(matrix)
    reach = int(np.abs(matrix).sum())
    shifts = np.array(np.meshgrid(*[range(-reach, reach + 1)] * 3)).reshape(3, -1).T
    inside = shifts @ to_new
    inside = shifts[((inside > -1e-9) & (inside < 1 - 1e-9)).all(axis=1)]
    if len(inside) != copies:
        raise RuntimeError(f"{len(inside)} lattice points in a cell of {copies}")
    coords = (cell.frac_coords[:, None] + inside).reshape(-1, 3) @ to_new
    return UnitCell(matrix @ cell.lattice, coords, np.repeat(cell.atomic_numbers, copies))


def supercell(cell: UnitCell, rng: np.random.Generator) -> UnitCell:
    """A cell of two to four times the volume, of random shape (Hermite normal form)."""
    size = int(rng.integers(2, 5))
    diagonal = rng.permutation([size, 1, 1])
    matrix = np.diag(diagonal)
    for i, j in ((1, 0), (2, 0), (2, 1)):
        matrix[i, j] = rng.integers(0, matrix[j, j])
    return change_basis(cell, matrix)


def rotated(cell: UnitCell, rng: np.random.Generator) -> UnitCell:
    """The crystal in a randomly rotated Cartesian frame."""
    rotation = Rotation.random(rng=rng).as_matrix()
    return UnitCell(cell.lattice @ rotation, cell.frac_coords, cell.atomic_numbers)


def shifted(cell: UnitCell, rng: np.random.Generator) -> UnitCell:
    """The crystal with another origin, and atoms in cells far from the first."""
    jumps = rng.integers(-3, 4, size=(cell.num_atoms, 3))
    return UnitCell(cell.lattice, cell.frac_coords + rng.uniform(size=3) + jumps, cell.atomic_numbers)


def left_handed(cell: UnitCell, rng: np.random.Generator) -> UnitCell:
    """The crystal in a left-handed basis: two axes swapped, or one or all three turned round."""
    choices = [np.eye(3, dtype=int)[[1, 0, 2]], np.diag([1, 1, -1]), -np.eye(3, dtype=int)]
    matrix = choices[rng.integers(len(choices))]
    return UnitCell(matrix @ cell.lattice, cell.frac_coords @ np.linalg.inv(matrix), cell.atomic_numbers)


def other_basis(cell: UnitCell, rng: np.random.Generator) -> UnitCell:
    """The crystal in another right-handed basis of the same lattice."""
    matrix = np.eye(3, dtype=int)
    for _ in range(3):
        i, j = rng.permutation(3)[:2]
        matrix[i] += rng.choice([-1, 1]) * matrix[j]
    return UnitCell(matrix @ cell.lattice, cell.frac_coords @ np.linalg.inv(matrix), cell.atomic_numbers)


def permuted(cell: UnitCell, rng: np.random.Generator) -> UnitCell:
    """The crystal with its atoms in another order."""
    order = rng.permutation(cell.num_atoms)
    return UnitCell(cell.lattice, cell.frac_coords[order], cell.atomic_numbers[order])


def everything(cell: UnitCell, rng: np.random.Generator) -> UnitCell:
    """All changes at once."""
    for change in (other_basis, supercell, left_handed, rotated, shifted, permuted):
        cell = change(cell, rng)
    return cell


def mirrored(cell: UnitCell, rng: np.random.Generator) -> UnitCell:
    """The mirror image, in a right-handed basis."""
    del rng
    matrix = -np.eye(3)
    return UnitCell(matrix @ cell.lattice @ np.diag([1.0, 1.0, -1.0]), -cell.frac_coords, cell.atomic_numbers)


COPIES = {
    "same": lambda cell, rng: cell,
    "supercell": supercell,
    "rotated": rotated,
    "shifted": shifted,
    "left-handed": left_handed,
    "other basis": other_basis,
    "permuted": permuted,
    "all at once": everything,
    "mirror image": mirrored,
}


def pair_forces(cell: UnitCell) -> np.ndarray:
    """A smooth pair force on every atom, with the symmetry of the crystal; arbitrary units."""
    atoms = Atoms(numbers=cell.atomic_numbers, cell=cell.lattice, scaled_positions=cell.frac_coords, pbc=True)
    i, j, vectors = neighbor_list("ijD", atoms, FORCE_CUTOFF)
    z = cell.atomic_numbers.astype(float)
    squared = (vectors**2).sum(axis=1)
    strength = (1 - squared / FORCE_CUTOFF**2) ** 3 * (1 + 0.1 * z[i]) * (1 + 0.1 * z[j])
    weighted = strength[:, None] * vectors
    return np.stack([np.bincount(i, weighted[:, k], minlength=cell.num_atoms) for k in range(3)], axis=1)


def check_copy(cell: UnitCell, encoded: EncodedStructure, rng: np.random.Generator) -> dict[str, float]:
    """Largest errors of sites, vectors, tensor and forces for one copy."""
    back = encoded.unit_cell()
    delta = back.frac_coords - cell.frac_coords
    errors = {"sites": float(np.linalg.norm((delta - np.rint(delta)) @ back.lattice, axis=1).max())}
    errors["lattice"] = float(np.abs(back.lattice - cell.lattice).max())

    vectors = rng.normal(size=(cell.num_atoms, 3))
    tensor = rng.normal(size=(3, 3))
    inside, inside_tensor = encoded.vectors_to_standard(vectors), encoded.tensor_to_standard(tensor)
    returned = encoded.vectors_from_standard(inside) - vectors
    errors["vectors"] = float(np.abs(returned).max())
    errors["tensor"] = float(np.abs(encoded.tensor_from_standard(inside_tensor) - tensor).max())
    # Distances from the first atom, as the standard setting has them and as the user's cell has them.
    standard = encoded.standard_coords() @ encoded.crystal.lattice
    user = back.frac_coords @ back.lattice
    ours, theirs = standard - standard[0], user - user[0]
    scale = 1 + np.abs(theirs).max()
    products = (ours * inside).sum(axis=1) - (theirs * vectors).sum(axis=1)
    quadratic = np.einsum("ai,ij,aj->a", ours, inside_tensor, ours) - np.einsum(
        "ai,ij,aj->a", theirs, tensor, theirs
    )
    errors["vector_products"] = float(np.abs(products).max() / scale)
    errors["tensor_products"] = float(np.abs(quadratic).max() / scale**2)

    forces = pair_forces(back)
    kept = encoded.vectors_from_orbits(encoded.vectors_to_orbits(forces))
    errors["forces"] = float(np.abs(kept - forces).max() / (1 + np.abs(forces).max()))
    lost = encoded.vectors_from_orbits(encoded.vectors_to_orbits(vectors)) - vectors
    errors["control"] = float(np.abs(lost).max())
    return errors


def same_canonical(first: Crystal, second: Crystal) -> float:
    """Largest difference between two canonical encodings; infinite where they differ in a discrete field."""
    if first.space_group_number != second.space_group_number:
        return np.inf
    if not np.array_equal(first.wyckoff_indices, second.wyckoff_indices):
        return np.inf
    if not np.array_equal(first.atomic_numbers, second.atomic_numbers):
        return np.inf
    return float(
        max(
            np.abs(first.lattice_params - second.lattice_params).max(),
            np.abs(first.free_coords - second.free_coords).max(),
        )
    )


def check_structure(cell: UnitCell, max_atoms: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """One line per copy of a structure, raw and ideal."""
    base = encode(cell, max_atoms=max_atoms)
    lines = []
    for state, start in (("raw", cell), ("ideal", base.unit_cell())):
        reference = encode(start, max_atoms=max_atoms).crystal
        canonical = reference.canonical()
        for name, change in COPIES.items():
            copy = change(start, rng)
            line: dict[str, Any] = {"state": state, "copy": name}
            try:
                encoded = encode(copy, max_atoms=max_atoms * 4)
            except NucleateError as error:
                lines.append(line | {"error": f"{type(error).__name__}: {error}"})
                continue
            crystal = encoded.crystal
            mirror = name == "mirror image"
            line |= check_copy(copy, encoded, rng)
            line["displacement"] = encoded.max_displacement
            line["group"] = [reference.space_group_number, crystal.space_group_number]
            line["prototype_key"] = crystal.prototype_key == reference.prototype_key
            line["bucket_key"] = crystal.bucket_key == reference.bucket_key
            line["handedness"] = crystal.handedness == (-1 if mirror else 1) * reference.handedness
            line["keys"] = [
                reference.bucket_key,
                crystal.bucket_key,
                reference.handedness,
                crystal.handedness,
            ]
            if not (mirror and reference.is_chiral):
                line["canonical"] = same_canonical(canonical, crystal.canonical())
            lines.append(line)
    return lines


def summarise(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts and largest errors by state and copy."""
    table: dict[str, Any] = {}
    for state in ("raw", "ideal"):
        for name in COPIES:
            mine = [line for line in lines if line["state"] == state and line["copy"] == name]
            good = [line for line in mine if "error" not in line]
            row = {"copies": len(mine), "errors": len(mine) - len(good)}
            for field in ("sites", "vector_products", "tensor_products", "forces", "vectors", "tensor"):
                row[field] = max((line[field] for line in good), default=0.0)
            row["sites_p99"] = float(np.percentile([line["sites"] for line in good], 99)) if good else 0.0
            row["control"] = float(np.median([line["control"] for line in good])) if good else 0.0
            for field in ("prototype_key", "bucket_key", "handedness"):
                row[field] = sum(line[field] for line in good)
            with_canonical = [line["canonical"] for line in good if "canonical" in line]
            row["canonical_tried"] = len(with_canonical)
            limit = 1e-5 if state == "ideal" else 1e-2
            row["canonical"] = sum(value < limit for value in with_canonical)
            table[f"{state}, {name}"] = row
    return table


def exceptions_of(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Copies that are not as they should be, with what is not."""
    found = []
    for line in lines:
        problems = [line["error"]] if "error" in line else []
        if not problems:
            allowed = TOLERANCE if line["state"] == "ideal" else line["displacement"] + 0.05
            if line["sites"] > allowed:
                problems.append(f"sites off by {line['sites']:.2e} Å")
            for field in ("vector_products", "tensor_products", "forces", "vectors", "tensor"):
                if line[field] > TOLERANCE and not (field == "forces" and line["state"] == "raw"):
                    problems.append(f"{field} off by {line[field]:.2e}")
            for field in ("prototype_key", "bucket_key", "handedness"):
                if not line[field]:
                    problems.append(f"{field} differs {line['keys']}")
            if line.get("canonical", 0.0) > (1e-5 if line["state"] == "ideal" else 1e-2):
                problems.append(f"canonical encodings differ by {line['canonical']:.2e}")
        found += [
            {k: line[k] for k in ("file", "row", "id", "state", "copy")} | {"problem": p} for p in problems
        ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of Parquet files")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    parser.add_argument("--size", type=int, default=1000, help="number of structures")
    parser.add_argument("--max-atoms", type=int, default=200, help="leave larger cells out of the sample")
    parser.add_argument("--files", nargs="*", default=[], help="names of files, all unless given")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.getLogger("moyo").addHandler(logging.NullHandler())
    run = describe_run(**vars(options))
    print_run(run)
    sample = sample_structures(options.data, size=options.size, seed=options.seed, files=tuple(options.files))
    lines: list[dict[str, Any]] = []
    left_out: Counter[str] = Counter()
    start = time.perf_counter()
    for number, structure in enumerate(sample):
        if structure.cell.num_atoms > options.max_atoms:
            left_out["larger than --max-atoms"] += 1
            continue
        rng = np.random.default_rng([options.seed, number])
        where = {"file": structure.file, "row": structure.row, "id": structure.id}
        try:
            lines += [where | line for line in check_structure(structure.cell, options.max_atoms, rng)]
        except NucleateError as error:
            left_out[f"does not encode: {error}"] += 1
        if number % 100 == 99:
            print(f"{number + 1} structures, {time.perf_counter() - start:.0f} s", flush=True)
    table, exceptions = summarise(lines), exceptions_of(lines)
    print(
        f"{'copies of':24s}{'number':>7s}{'errors':>7s}{'sites (Å)':>11s}{'vectors':>9s}{'tensor':>9s}"
        f"{'forces':>9s}{'control':>9s}{'prototype':>10s}{'bucket':>8s}{'hand':>7s}{'canonical':>14s}"
    )
    for name, row in table.items():
        print(
            f"{name:24s}{row['copies']:7d}{row['errors']:7d}{row['sites']:11.1e}{row['vector_products']:9.0e}"
            f"{row['tensor_products']:9.0e}{row['forces']:9.0e}{row['control']:9.2g}{row['prototype_key']:10d}"
            f"{row['bucket_key']:8d}{row['handedness']:7d}{row['canonical']:8d}/{row['canonical_tried']}"
        )
    print(f"left out: {dict(left_out) or 'none'}; {len(exceptions)} exceptions")
    for exception in exceptions[:40]:
        print("  " + ", ".join(f"{k} {v}" for k, v in exception.items()))
    write_json(options.out, {"run": run, "table": table, "left_out": left_out, "exceptions": exceptions})


if __name__ == "__main__":
    main()
