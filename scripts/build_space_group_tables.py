"""Writes src/nucleate/crystal/tables/space_groups.npz and .json: operations and Wyckoff positions.

Operations come from moyopy in its standard setting (unique axis b, cell choice 1, hexagonal axes, origin
choice 2). Letters and representative coordinates come from pyxtal; everything else (images, stabilisers,
period lattices, identification maps) is computed here in exact rational arithmetic. Site-symmetry symbols
come from moyopy.

    python scripts/build_space_group_tables.py
"""

from __future__ import annotations

import json
import re
from fractions import Fraction
from pathlib import Path

import moyopy
import numpy as np
from pyxtal.symmetry import Group

from integer_lattice import inverse, numerators, saturation

TABLES = Path(__file__).parents[1] / "src" / "nucleate" / "crystal" / "tables"
DENOMINATOR = 24
STANDARD = moyopy.Setting.standard()


def read_group(number: int) -> dict:
    """Coset representatives modulo lattice translations, centring vectors and primitive basis, all exact."""
    operations = moyopy.operations_from_number(number, setting=STANDARD)
    dataset_hall = next(h for h in range(1, 531) if is_standard(h, number))
    entry = moyopy.HallSymbolEntry(dataset_hall)
    # columns: primitive basis vectors in conventional coordinates
    primitive = inverse(entry.centering.linear)
    centrings = [
        np.array([Fraction(round(x * 24), 24) for x in v], dtype=object)
        for v in entry.centering.lattice_points
    ]
    rotations, translations, seen = [], [], set()
    for W, t in zip(operations.rotations, operations.translations):
        key = tuple(np.ravel(W))
        if key not in seen:
            seen.add(key)
            rotations.append(np.array(W, dtype=object))
            translations.append(np.array([Fraction(round(x * 24), 24) % 1 for x in t], dtype=object))
    assert len(rotations) * len(centrings) == len(operations)
    assert (rotations[0] == np.eye(3)).all()
    assert not any(translations[0])
    return {
        "number": number,
        "hall_number": dataset_hall,
        "hall_symbol": entry.hall_symbol,
        "rotations": rotations,
        "translations": translations,
        "centrings": centrings,
        "primitive": primitive,
        "to_primitive": inverse(primitive),
    }


def is_standard(hall: int, number: int) -> bool:
    entry = moyopy.HallSymbolEntry(hall)
    if entry.number != number:
        return False
    setting = moyopy.Setting.hall_number(hall)
    mine = moyopy.operations_from_number(number, setting=setting)
    other = moyopy.operations_from_number(number, setting=STANDARD)

    def key(ops):
        return {
            (tuple(np.ravel(W)), tuple(np.round(np.array(t) * 24).astype(int) % 24))
            for W, t in zip(ops.rotations, ops.translations)
        }

    return key(mine) == key(other)


def parse_coordinates(text: str) -> tuple[np.ndarray, np.ndarray]:
    """(B, c) of a representative such as ``x, 2x+1/4, z``; one column of B per free variable, x, y, z."""
    full, origin = np.zeros((3, 3), dtype=object), np.zeros(3, dtype=object)
    for row, part in enumerate(text.replace(" ", "").split(",")):
        for sign, number, variable in re.findall(r"([+-]?)(\d+(?:/\d+)?)?\*?([xyz])?", part):
            if not number and not variable:
                continue
            value = Fraction(number or 1) * (-1 if sign == "-" else 1)
            if variable:
                full[row, "xyz".index(variable)] += value
            else:
                origin[row] += value
    used = [j for j in range(3) if any(full[:, j])]
    return full[:, used], origin


def left_inverse(B: np.ndarray) -> np.ndarray:
    return inverse(B.T.dot(B)).dot(B.T) if B.shape[1] else np.zeros((0, 3), dtype=object)


def is_lattice(group: dict, vector) -> bool:
    return all(Fraction(x).denominator == 1 for x in group["to_primitive"].dot(vector))


def analyse_position(group: dict, B: np.ndarray, c: np.ndarray) -> dict:
    """Images, stabiliser, functionals, period lattice and identification maps of f(u) = B u + c."""
    d = B.shape[1]
    left = left_inverse(B)
    Q = group["to_primitive"]
    if d:
        basis, functionals, section = saturation(Q.dot(B))
        period = left.dot(group["primitive"].dot(basis))
    else:
        functionals, section, period = (
            np.eye(3, dtype=object),
            np.eye(3, dtype=object),
            np.zeros((0, 0), dtype=object),
        )
    functionals = functionals.dot(Q) if d < 3 else np.zeros((0, 3), dtype=object)
    section = group["primitive"].dot(section) if d < 3 else np.zeros((3, 0), dtype=object)

    stabiliser, shifts, maps = [], [], []
    cosets: list[tuple] = []
    images = []
    for g, (W, t) in enumerate(zip(group["rotations"], group["translations"])):
        WB, Wc = W.dot(B), W.dot(c) + t
        if (WB == B).all() and is_lattice(group, Wc - c):
            stabiliser.append(g)
            shifts.append(c - Wc)  # W f(u) + t + shift = f(u)
        key = None
        for k, (B2, c2) in enumerate(cosets):
            if (WB == B2).all() and is_lattice(group, Wc - c2):
                key = k
                break
        if key is None:
            cosets.append((WB, Wc))
            images.append(g)
        M = left.dot(WB) if d else np.zeros((0, 0), dtype=object)
        if d == 0 or (B.dot(M) == WB).all():
            offset = functionals.dot(Wc - c) if d < 3 else np.zeros(0, dtype=object)
            if all(Fraction(x).denominator == 1 for x in offset):
                v = left.dot(Wc - c - section.dot(offset)) if d else np.zeros(0, dtype=object)
                v = reduce_modulo(v, period)
                if d and not any((M == M2).all() and (v == v2).all() for M2, v2 in maps):
                    maps.append((M, v))
    maps.sort(key=lambda item: not ((item[0] == np.eye(d)).all() and not any(item[1])))
    return {
        "images": images,
        "stabiliser": stabiliser,
        "stabiliser_shifts": shifts,
        "functionals": functionals,
        "section": section,
        "period": period,
        "maps": maps,
    }


def reduce_modulo(v: np.ndarray, period: np.ndarray) -> np.ndarray:
    """v modulo the lattice with basis columns ``period``, each coefficient in [0, 1)."""
    if not len(v):
        return v
    coefficients = inverse(period).dot(v)
    return period.dot(np.array([x % 1 for x in coefficients], dtype=object))


def site_symmetry_symbols(number: int, positions: list[tuple]) -> list[str]:
    """Site-symmetry symbols by letter, from moyopy, for a crystal with one orbit on every position."""
    symbols: dict[str, str] = {}
    rng = np.random.default_rng(number)
    group = moyopy.operations_from_number(number, setting=STANDARD)
    rotations, translations = np.array(group.rotations), np.array(group.translations)
    lattice = generic_lattice(number)
    general = positions[-1]
    for letter, B, c in positions:
        coords, numbers = [], []
        for z, (B2, c2) in enumerate([(B, c), *[(general[1], general[2])] * 3]):
            u = rng.uniform(0.05, 0.45, B2.shape[1])
            x = B2.astype(float) @ u + c2.astype(float) if B2.shape[1] else c2.astype(float)
            orbit = (rotations @ x + translations) % 1.0
            keep: list[np.ndarray] = []
            for p in orbit:
                if not any(np.linalg.norm(q - p - np.round(q - p)) < 1e-6 for q in keep):
                    keep.append(p)
            coords += keep
            numbers += [z + 1] * len(keep)
        cell = moyopy.Cell(lattice.tolist(), [p.tolist() for p in coords], numbers)
        dataset = moyopy.MoyoDataset(cell, symprec=1e-5, setting=STANDARD)
        assert dataset.number == number, (number, letter, dataset.number)
        found = dataset.normalizer_wyckoff_positions(preserve_chirality=False)
        # this dataset may differ from ours by a normalizer element: look the letter up in the one that leaves
        # coordinates
        for _, wyckoffs in found.coset_representatives:
            for w in wyckoffs:
                symbols.setdefault(w.letter, w.site_symmetry)
    return [symbols[letter] for letter, _, _ in positions]


def generic_lattice(number: int) -> np.ndarray:
    system = moyopy.SpaceGroupType(number).crystal_system.lower()
    shapes = {
        "triclinic": [[7.1, 0, 0], [1.3, 8.3, 0], [1.9, 2.3, 9.7]],
        "monoclinic": [[7.1, 0, 0], [0, 8.3, 0], [-2.7, 0, 9.7]],
        "orthorhombic": [[7.1, 0, 0], [0, 8.3, 0], [0, 0, 9.7]],
        "tetragonal": [[7.1, 0, 0], [0, 7.1, 0], [0, 0, 9.7]],
        "trigonal": [[7.1, 0, 0], [-3.55, 7.1 * 3**0.5 / 2, 0], [0, 0, 9.7]],
        "hexagonal": [[7.1, 0, 0], [-3.55, 7.1 * 3**0.5 / 2, 0], [0, 0, 9.7]],
        "cubic": [[9.7, 0, 0], [0, 9.7, 0], [0, 0, 9.7]],
    }
    return 2 * np.array(shapes[system], dtype=float)


def main() -> None:
    flat: dict[str, list] = {
        name: []
        for name in (
            "rotations",
            "translations",
            "centrings",
            "primitive",
            "origin",
            "basis",
            "functionals",
            "section",
            "period",
            "images",
            "stabiliser",
            "stabiliser_shifts",
            "map_linear",
            "map_shift",
        )
    }
    counts: dict[str, list[int]] = {
        name: []
        for name in (
            "num_operations",
            "num_centrings",
            "num_positions",
            "num_free",
            "num_images",
            "num_stabiliser",
            "num_maps",
        )
    }
    groups = []
    for number in range(1, 231):
        group = read_group(number)
        kind = moyopy.SpaceGroupType(number)
        listed = sorted(
            ((p.letter, p.multiplicity, *parse_coordinates(p.ops[0].as_xyz_str())) for p in Group(number)),
            key=lambda p: (p[0] == "A", p[0]),
        )
        symbols = site_symmetry_symbols(number, [(p[0], p[2], p[3]) for p in listed])
        for name in ("rotations", "translations", "centrings"):
            flat[name] += group[name]
        flat["primitive"].append(group["primitive"])
        counts["num_operations"].append(len(group["rotations"]))
        counts["num_centrings"].append(len(group["centrings"]))
        counts["num_positions"].append(len(listed))
        for letter, multiplicity, B, c in listed:
            found = analyse_position(group, B, c)
            assert len(found["images"]) * len(group["centrings"]) == multiplicity, (number, letter)
            assert len(found["images"]) * len(found["stabiliser"]) == len(group["rotations"])
            d = B.shape[1]
            counts["num_free"].append(d)
            counts["num_images"].append(len(found["images"]))
            counts["num_stabiliser"].append(len(found["stabiliser"]))
            counts["num_maps"].append(max(1, len(found["maps"])))
            flat["origin"].append(c)
            flat["basis"].append(pad(B, 3, 3))
            flat["functionals"].append(pad(found["functionals"], 3, 3))
            flat["section"].append(pad(found["section"], 3, 3))
            flat["period"].append(pad(found["period"], 3, 3))
            flat["images"] += found["images"]
            flat["stabiliser"] += found["stabiliser"]
            flat["stabiliser_shifts"] += found["stabiliser_shifts"]
            for M, v in found["maps"] or [(np.zeros((0, 0), dtype=object), np.zeros(0, dtype=object))]:
                flat["map_linear"].append(pad(M, 3, 3))
                flat["map_shift"].append(np.concatenate([v, np.zeros(3 - d, dtype=object)]))
        groups.append(
            {
                "number": number,
                "symbol": kind.hm_short.replace(" ", ""),
                "symbol_full": kind.hm_full,
                "hall_number": group["hall_number"],
                "hall_symbol": group["hall_symbol"],
                "crystal_system": kind.crystal_system.lower(),
                "lattice_system": kind.lattice_system.lower(),
                "point_group": kind.geometric_crystal_class,
                "letters": "".join(p[0] for p in listed),
                "site_symmetries": symbols,
            }
        )
        if number % 10 == 0:
            print(number, flush=True)
    arrays = {}
    for name, rows in flat.items():
        if name in ("images", "stabiliser"):
            arrays[name] = np.array(rows, dtype=np.uint8)
        else:
            integers = numerators(np.array(rows, dtype=object), 1 if name == "rotations" else DENOMINATOR)
            arrays[name] = integers.astype(np.int8)
            assert (arrays[name] == integers).all(), name
    arrays |= {name: np.array(values, dtype=np.int16) for name, values in counts.items()}
    TABLES.mkdir(exist_ok=True)
    np.savez_compressed(TABLES / "space_groups.npz", **arrays)
    text = json.dumps({"moyopy": moyopy.__version__, "denominator": DENOMINATOR, "groups": groups}, indent=0)
    (TABLES / "space_groups.json").write_text(text + "\n")
    print(
        "finer period lattices:",
        sum(
            d > 0 and abs(np.linalg.det(p[:d, :d] / DENOMINATOR)) < 1 - 1e-9
            for p, d in zip(arrays["period"].astype(float), counts["num_free"])
        ),
    )
    print("positions with identifications:", sum(n > 1 for n in counts["num_maps"]))


def pad(matrix: np.ndarray, rows: int, columns: int) -> np.ndarray:
    out = np.zeros((rows, columns), dtype=object)
    out[: matrix.shape[0], : matrix.shape[1]] = matrix
    return out


if __name__ == "__main__":
    main()
