"""Writes src/nucleate/crystal/tables/normalizers.npz: affine normalizers modulo the group, of all groups.

For every linear part L that maps the translation lattice and the point group onto themselves, the shifts s
with (L, s) G (L, s)^-1 = G are the solutions of one linear system of congruences modulo the lattice, solved
exactly. The
normalizer is stored as coset representatives: proper linear parts modulo the proper point group, and pure
shifts modulo the lattice; each with the Wyckoff letter permutation and the map of free coordinates it
induces. Continuous shifts of polar groups are stored as directions with their dual functionals. For the 65
Sohncke groups one improper map onto the mirror-image group (itself or the enantiomorphic partner) is added.

Run after build_space_group_tables.py:  python scripts/build_normalizer_tables.py
"""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np

from build_space_group_tables import TABLES, left_inverse, pad, read_group, reduce_modulo
from integer_lattice import (
    clear_denominators,
    fractions,
    inverse,
    numerators,
    saturation,
    smith_normal_form,
    solve_congruences,
)

DENOMINATOR = 48
ENANTIOMORPHS = [
    (76, 78),
    (91, 95),
    (92, 96),
    (144, 145),
    (151, 153),
    (152, 154),
    (169, 170),
    (171, 172),
    (178, 179),
    (180, 181),
    (212, 213),
]
PARTNER = dict(ENANTIOMORPHS) | {b: a for a, b in ENANTIOMORPHS}


def determinant(L) -> int:
    return round(np.linalg.det(np.asarray(L, dtype=float)))


def linear_candidates(number: int) -> list[np.ndarray]:
    """Every unimodular matrix (det +1 or -1) of the conventional basis that could be in the normalizer."""
    if number <= 2:
        rows = itertools.product((-1, 0, 1), repeat=9)
        matrices = (np.array(r).reshape(3, 3) for r in rows)
    elif number <= 15:
        matrices = (
            np.array([[p, 0, q], [0, y, 0], [r, 0, s]])
            for p, q, r, s in itertools.product(range(-2, 3), repeat=4)
            for y in (1, -1)
        )
    elif 143 <= number <= 194:
        sixfold = np.array([[1, -1, 0], [1, 0, 0], [0, 0, 1]])
        swap = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]])
        mirror = np.diag([1, 1, -1])
        matrices = (
            np.linalg.matrix_power(sixfold, i)
            @ np.linalg.matrix_power(swap, j)
            @ np.linalg.matrix_power(mirror, k)
            for i in range(6)
            for j in range(2)
            for k in range(2)
        )
    else:
        matrices = (
            np.diag(signs) @ np.eye(3, dtype=int)[list(order)]
            for order in itertools.permutations(range(3))
            for signs in itertools.product((1, -1), repeat=3)
        )
    return [m.astype(object) for m in matrices if abs(determinant(m)) == 1]


def conjugating_shifts(
    source: dict, target: dict, L: np.ndarray
) -> tuple[list[np.ndarray], np.ndarray] | None:
    """All s (conventional, of the target) with (L, s) source (L, s)^-1 = target: (finite, continuous)."""
    Q, P = target["to_primitive"], target["primitive"]
    in_primitive = Q.dot(L).dot(source["primitive"])
    if any(Fraction(x).denominator != 1 for x in in_primitive.ravel()):
        return None
    back = numerators(inverse(L), 1)
    index = {tuple(np.ravel(W)): t for W, t in zip(target["rotations"], target["translations"])}
    rows, rhs = [], []
    for W, t in zip(source["rotations"], source["translations"]):
        conjugate = L.dot(W).dot(back)
        wanted = index.get(tuple(np.ravel(conjugate)))
        if wanted is None:
            return None
        # L t + s - W' s = t' (mod T)
        rows.append(numerators(Q.dot(np.eye(3, dtype=object) - conjugate).dot(P), 1).astype(object))
        rhs.append(Q.dot(wanted - L.dot(t)))
    solved = solve_congruences(np.concatenate(rows), np.concatenate(rhs))
    if solved is None:
        return None
    finite, directions = solved
    return [P.dot(s) for s in finite], P.dot(directions)


def polar_functionals(group: dict) -> tuple[np.ndarray, np.ndarray]:
    """(directions, functionals): dual bases of the continuous shifts, the latter integer on T and all t."""
    Q, P = group["to_primitive"], group["primitive"]
    total = sum(Q.dot(W).dot(P) for W in group["rotations"]) / Fraction(len(group["rotations"]))
    rank = sum(1 for x in np.diag(smith_normal_form(clear_denominators(total))[1]) if x)
    if rank == 0:
        return np.zeros((3, 0), dtype=object), np.zeros((0, 3), dtype=object)
    rows, _, _ = saturation(total.T)  # integer row vectors fixed by every W from the right
    phi = rows.T
    # the sublattice of rows k with k . phi . t integer for every t
    values = np.array([phi.dot(Q.dot(t)) for t in group["translations"]], dtype=object).T
    scale = int(np.lcm.reduce([Fraction(x).denominator for x in values.ravel()]))
    good = [
        np.array(k, dtype=object)
        for k in itertools.product(range(scale + 1), repeat=rank)
        if any(k) and all(Fraction(x).denominator == 1 for x in np.array(k, dtype=object).dot(values))
    ]
    generators = np.array(good + [scale * e for e in np.eye(rank, dtype=object)], dtype=object)
    _, D, V = smith_normal_form(generators)
    basis = numerators(fractions(D[:rank, :rank]).dot(inverse(V)), 1).astype(object)
    phi = basis.dot(phi)
    fixed, _, _ = saturation(total)
    directions = fixed.dot(inverse(phi.dot(fixed)))
    return P.dot(directions), phi.dot(Q)


def position_maps(
    source: list[dict], target: list[dict], target_group: dict, L, s
) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """For every source position w: (w', M, v) with (L, s) f_w(u) in the orbit of f_w'(M u + v)."""
    out = []
    for p in source:
        d = p["basis"].shape[1]
        LB, Lc = L.dot(p["basis"]), L.dot(p["origin"]) + s
        found = None
        for index, q in enumerate(target):
            if q["basis"].shape[1] != d or q["num_images"] != p["num_images"]:
                continue
            for W, t in zip(q["inverse_rotations"], q["image_translations"]):
                point, columns = W.dot(Lc - t) - q["origin"], W.dot(LB)
                M = q["left"].dot(columns) if d else np.zeros((0, 0), dtype=object)
                if d and not (q["basis"].dot(M) == columns).all():
                    continue
                offset = q["functionals"].dot(point) if d < 3 else np.zeros(0, dtype=object)
                if any(Fraction(x).denominator != 1 for x in offset):
                    continue
                v = q["left"].dot(point - q["section"].dot(offset)) if d else np.zeros(0, dtype=object)
                found = (index, M, reduce_modulo(v, q["period"]))
                break
            if found:
                break
        assert found is not None
        out.append(found)
    return out


def read_positions(arrays: dict, group: dict) -> list[dict]:
    start = np.concatenate([[0], np.cumsum(arrays["num_positions"])])
    image_start = np.concatenate([[0], np.cumsum(arrays["num_images"])])
    positions = []
    for p in range(start[group["number"] - 1], start[group["number"]]):
        d = int(arrays["num_free"][p])
        images = arrays["images"][image_start[p] : image_start[p + 1]]
        B = fractions(arrays["basis"][p][:, :d], 24)
        positions.append(
            {
                "basis": B,
                "origin": fractions(arrays["origin"][p], 24),
                "left": left_inverse(B),
                "num_images": len(images),
                "functionals": fractions(arrays["functionals"][p][: 3 - d], 24),
                "section": fractions(arrays["section"][p][:, : 3 - d], 24),
                "period": fractions(arrays["period"][p][:d, :d], 24),
                "inverse_rotations": [
                    numerators(inverse(group["rotations"][i]), 1).astype(object) for i in images
                ],
                "image_translations": [group["translations"][i] for i in images],
            }
        )
    return positions


def main() -> None:
    with np.load(TABLES / "space_groups.npz") as archive:
        arrays = {k: archive[k] for k in archive.files}
    groups = {n: read_group(n) for n in range(1, 231)}
    positions = {n: read_positions(arrays, groups[n]) for n in groups}
    flat: dict[str, list] = {
        name: []
        for name in (
            "linear",
            "shifts",
            "permutations",
            "map_linear",
            "map_shift",
            "directions",
            "functionals",
            "mirror_partner",
            "num_linear",
            "num_shifts",
            "num_directions",
        )
    }

    def store(number: int, target: int, L, s) -> None:
        flat["linear"].append(L)
        flat["shifts"].append([x % 1 for x in s])
        for index, M, v in position_maps(positions[number], positions[target], groups[target], L, s):
            flat["permutations"].append(index)
            flat["map_linear"].append(pad(M, 3, 3))
            flat["map_shift"].append(np.concatenate([v, np.zeros(3 - len(v), dtype=object)]))

    for number, group in groups.items():
        proper = {tuple(np.ravel(W)) for W in group["rotations"] if determinant(W) > 0}
        seen: set[tuple] = set()
        representatives = []
        candidates = sorted(
            linear_candidates(number),
            key=lambda m: (not (m == np.eye(3)).all(), abs(m).sum(), tuple(-m.ravel())),
        )
        for L in candidates:
            if determinant(L) < 0 or tuple(np.ravel(L)) in seen:
                continue
            shifts = conjugating_shifts(group, group, L)
            if shifts is None or not shifts[0]:
                continue
            for W in proper:
                seen.add(tuple(np.ravel(L.dot(np.array(W, dtype=object).reshape(3, 3)))))
            representatives.append((L, min(shifts[0], key=lambda s: (sum(x != 0 for x in s), tuple(s)))))
        directions, functionals = polar_functionals(group)
        finite, continuous = conjugating_shifts(group, group, np.eye(3, dtype=object))
        assert continuous.shape[1] == directions.shape[1]
        scale = [
            int(np.lcm.reduce([Fraction(x).denominator for x in group["to_primitive"].dot(d)]))
            for d in directions.T
        ]
        residual = [
            directions.dot(np.array(k, dtype=object)) if len(k) else np.zeros(3, dtype=object)
            for k in itertools.product(*(range(n) for n in scale))
        ]
        pure: dict[tuple, np.ndarray] = {}
        for s, r in itertools.product(finite, residual):
            x = s + r
            if len(functionals):  # bring the floating part to functionals = integers
                x = x - directions.dot(functionals.dot(x) - np.array([Fraction(0)] * len(functionals)))
                x = x + r
            key = tuple(y % 1 for y in group["to_primitive"].dot(x))
            pure.setdefault(key, group["primitive"].dot(np.array(key, dtype=object)))
        for L, s in representatives:
            store(number, number, L, s)
        ordered = [pure[key] for key in sorted(pure)]
        assert not any(ordered[0])
        for s in ordered:
            store(number, number, np.eye(3, dtype=object), s)
        flat["num_linear"].append(len(representatives))
        flat["num_shifts"].append(len(ordered))
        flat["num_directions"].append(directions.shape[1])
        flat["directions"] += list(directions.T)
        flat["functionals"] += list(functionals)
        if len(proper) == len(group["rotations"]):
            partner = PARTNER.get(number, number)
            for L in sorted(
                (m for m in candidates if determinant(m) < 0), key=lambda m: not (m == -np.eye(3)).all()
            ):
                shifts = conjugating_shifts(group, groups[partner], L)
                if shifts is not None and shifts[0]:
                    store(
                        number, partner, L, min(shifts[0], key=lambda s: (sum(x != 0 for x in s), tuple(s)))
                    )
                    break
            else:
                raise AssertionError(number)
            flat["mirror_partner"].append(partner)
        else:
            flat["mirror_partner"].append(0)
        if number < 16 or number % 10 == 0:
            print(number, len(representatives), len(ordered), directions.shape[1], flush=True)
    out = {}
    for name, rows in flat.items():
        if name in ("permutations", "mirror_partner"):
            out[name] = np.array(rows, dtype=np.uint8)
        elif name.startswith("num_"):
            out[name] = np.array(rows, dtype=np.int16)
        else:
            array = numerators(
                np.array(rows, dtype=object), 1 if name in ("linear", "functionals") else DENOMINATOR
            )
            out[name] = array.astype(np.int8)
            assert (out[name] == array).all(), name
    np.savez_compressed(TABLES / "normalizers.npz", **out)
    print({k: v.shape for k, v in out.items()})


if __name__ == "__main__":
    main()
