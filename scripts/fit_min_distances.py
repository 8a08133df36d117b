"""Writes src/nucleate/physics/tables/min_distances.npz: how near pairs of elements come in real crystals.

    python scripts/fit_min_distances.py --data ../shared/data

Fitted on train rows whose formula is not in val. The margin is the one that flags 0.3 % of real structures in
two-fold cross-validation over formulas; the false alarms on val are only printed. Two minutes on one core.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np

from nucleate.physics.elements import NUM_ELEMENTS, element_table, element_values
from nucleate.physics.neighbours import neighbours_within
from structure_pool import PoolStructure, read_pool

OUTPUT = Path(__file__).resolve().parents[1] / "src" / "nucleate" / "physics" / "tables" / "min_distances.npz"
RADIUS = 5.0
QUANTILE = 0.003
PRIOR_STRUCTURES = 10.0
FALSE_ALARM = 0.003
FREQUENT = 20
OUTLIER_SPREADS = 5.0
SUPPORT = 3

PairMinima = tuple[np.ndarray, np.ndarray]


def pair_minima(structure: PoolStructure) -> PairMinima:
    """(element pairs as z1 * 128 + z2, z1 <= z2; shortest distance of each) of one structure, up to 5 Å."""
    pairs = neighbours_within(structure.lattice, structure.frac_coords, radius=RADIUS)
    za, zb = structure.atomic_numbers[pairs.first], structure.atomic_numbers[pairs.second]
    code = np.minimum(za, zb) * 128 + np.maximum(za, zb)
    order = np.argsort(pairs.distances)
    codes, index = np.unique(code[order], return_index=True)
    return codes, pairs.distances[order][index]


def by_pair(minima: list[PairMinima]) -> dict[int, np.ndarray]:
    collected: dict[int, list[float]] = defaultdict(list)
    for codes, distances in minima:
        for code, distance in zip(codes, distances):
            collected[int(code)].append(distance)
    return {code: np.sort(values) for code, values in collected.items()}


def radius_features(z1: np.ndarray, z2: np.ndarray) -> np.ndarray:
    """Symmetric descriptors of a pair: radii, electronegativities, and what kinds of elements meet."""
    covalent = element_values("covalent_radius", z1), element_values("covalent_radius", z2)
    metallic = element_values("metallic_radius", z1) + element_values("metallic_radius", z2)
    chi1, chi2 = element_values("electronegativity", z1), element_values("electronegativity", z2)
    letters = np.array(list(element_table()["metallic"]))
    nonmetals = (letters[z1 - 1] == "n").astype(int) + (letters[z2 - 1] == "n")
    metals = (letters[z1 - 1] == "m").astype(int) + (letters[z2 - 1] == "m")
    total, mean = covalent[0] + covalent[1], (chi1 + chi2) / 2
    return np.stack(
        [
            np.ones_like(total), np.log(total), np.log(metallic), np.abs(covalent[0] - covalent[1]) / total,
            np.abs(chi1 - chi2), (chi1 - chi2) ** 2, mean, mean**2,
            nonmetals == 2, metals == 2, (nonmetals == 1) & (metals == 1), (z1 == 1) | (z2 == 1),
        ],
        axis=-1,
    ).astype(float)  # fmt: skip


def low_quantile(values: np.ndarray) -> float:
    return float(np.quantile(values, QUANTILE, method="inverted_cdf"))


def fit_fallback(pairs: dict[int, np.ndarray]) -> tuple[np.ndarray, float]:
    """(least-absolute-deviation coefficients, residual spread) of the log low quantile of frequent pairs."""
    codes = np.array([code for code, values in pairs.items() if len(values) >= FREQUENT])
    x = radius_features(codes // 128, codes % 128)
    y = np.log([low_quantile(pairs[code]) for code in codes])
    coefficients = np.linalg.lstsq(x, y, rcond=None)[0]
    for _ in range(50):
        weight = np.sqrt(1.0 / np.maximum(np.abs(y - x @ coefficients), 1e-3))[:, None]
        coefficients = np.linalg.lstsq(x * weight, y * weight[:, 0], rcond=None)[0]
    return coefficients, float(np.std(y - x @ coefficients))


def log_minimum(pairs: dict[int, np.ndarray]) -> np.ndarray:
    """Log minimum of all pairs before the margin."""
    coefficients, spread = fit_fallback(pairs)
    z1, z2 = np.meshgrid(np.arange(1, NUM_ELEMENTS + 1), np.arange(1, NUM_ELEMENTS + 1), indexing="ij")
    fallback = radius_features(z1, z2) @ coefficients
    result = fallback.copy()
    for code, values in pairs.items():
        a, b = code // 128 - 1, code % 128 - 1
        floor = fallback[a, b] - OUTLIER_SPREADS * spread
        quantile = np.log(low_quantile(values))
        # A distance far below what radii allow counts only if at least three structures have one.
        if quantile < floor and (len(values) < SUPPORT or np.log(values[SUPPORT - 1]) > floor):
            quantile = floor
        weight = len(values) / (len(values) + PRIOR_STRUCTURES)
        result[a, b] = result[b, a] = weight * quantile + (1 - weight) * fallback[a, b]
    return result


def worst_ratio(minima: list[PairMinima], log_table: np.ndarray) -> np.ndarray:
    """Smallest log(distance / minimum) of each structure; 9 where nothing lies inside 5 Å."""
    return np.array(
        [
            (np.log(distances) - log_table[codes // 128 - 1, codes % 128 - 1]).min() if len(codes) else 9.0
            for codes, distances in minima
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()
    val = read_pool(arguments.data, "val")
    val_formulas = {s.formula for s in val}
    train = [s for s in read_pool(arguments.data, "train") if s.formula not in val_formulas]
    minima = [pair_minima(s) for s in train]
    formulas = sorted({s.formula for s in train})
    np.random.default_rng(0).shuffle(formulas)
    fold_of = {formula: k % 2 for k, formula in enumerate(formulas)}
    fold = np.array([fold_of[s.formula] for s in train])
    ratios = np.empty(len(train))
    for k in range(2):
        table = log_minimum(by_pair([m for m, f in zip(minima, fold) if f != k]))
        ratios[fold == k] = worst_ratio([m for m, f in zip(minima, fold) if f == k], table)
    log_margin = float(np.floor(np.quantile(ratios, FALSE_ALARM) / 0.005) * 0.005)

    pairs = by_pair(minima)
    coefficients, spread = fit_fallback(pairs)
    table = log_minimum(pairs) + log_margin
    counts = np.zeros((NUM_ELEMENTS, NUM_ELEMENTS), dtype=np.int32)
    for code, values in pairs.items():
        counts[code // 128 - 1, code % 128 - 1] = len(values)
    upper = np.triu_indices(NUM_ELEMENTS)
    np.savez_compressed(
        OUTPUT,
        minimum=np.exp(table)[upper].astype(np.float32),
        structures=counts[upper],
        margin=np.array(np.exp(log_margin)),
        fallback_coefficients=coefficients,
    )
    print(
        f"{OUTPUT.name}: {OUTPUT.stat().st_size / 1000:.0f} kB, "
        f"{len(train)} structures, {len(pairs)} pairs seen"
    )
    print(
        f"margin {np.exp(log_margin):.3f}; "
        f"fallback spread of log distance {spread:.3f} over pairs with n >= {FREQUENT}"
    )
    print(f"pairs with n >= 20, 50, 200: {[(counts >= n).sum() for n in (20, 50, 200)]}")

    val_minima = [pair_minima(s) for s in val]
    held = worst_ratio(val_minima, table)
    print(f"val: {(held < 0).sum()} of {len(val)} real structures flagged ({100 * (held < 0).mean():.2f} %)")
    for k in np.flatnonzero(held < 0):
        print("   ", val[k].formula, f"ratio {np.exp(held[k]):.3f}")
    for source in sorted({s.source for s in train}):
        rows = np.array([s.source == source for s in train])
        print(f"cross-validated false alarms, {source}: {100 * (ratios[rows] < log_margin).mean():.2f} %")
    for factor in (0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6):
        print(
            f"val compressed linearly by {factor}: {100 * (held + np.log(factor) < 0).mean():.1f} % flagged"
        )
    rng = np.random.default_rng(0)
    random = [
        pair_minima(
            PoolStructure(s.source, s.formula, s.atomic_numbers, s.lattice, rng.random(s.frac_coords.shape))
        )
        for s in val
    ]
    print(f"val cells with random coordinates: {100 * (worst_ratio(random, table) < 0).mean():.1f} % flagged")


if __name__ == "__main__":
    main()
