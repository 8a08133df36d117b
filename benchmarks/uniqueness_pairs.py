"""Uniqueness against all-pairs StructureMatcher: agreement pair by pair, equal groups, and the ratio of times.

Per data set: every pair of crystals with the same reduced formula is decided by pymatgen's ``StructureMatcher.fit`` (on
cells reduced once by pymatgen, which is the fastest way to call it) and by nucleate; pairs of different formulas are
no match by StructureMatcher's own rule, which a random sample of them checks. Groups are compared with those of
``StructureMatcher.group_structures`` on the same crystals in the same order.

Three times are compared with ours, which includes reading the cells, reducing them and grouping:

- all pairs: ``fit`` called for every pair, structures as given; measured where there are few pairs, else the mean over
  a random sample of pairs times their number (said so in the table);
- pairs of a formula: ``fit`` on reduced cells for every pair with the same formula;
- group_structures: pymatgen's own grouping, which sorts by formula and compares with representatives only.

Example: python benchmarks/uniqueness_pairs.py --data ../shared/data --out uniqueness_pairs.json
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure

from nucleate.crystal.convert import unit_cell_to_pymatgen
from nucleate.evaluation.formula_index import crystal_keys
from nucleate.evaluation.matcher import Matcher
from nucleate.evaluation.reading import store_candidates
from nucleate.evaluation.reduced_cell import reduce_cell
from nucleate.evaluation.set_matching import match_set
from real_structures import RealStructure, describe_run, print_run, sample_structures, write_json

TOLERANCES = {"default": (0.2, 0.3, 5.0), "csp": (0.3, 0.5, 10.0)}
SAMPLED_PAIRS = 2000


def formula_pairs(structures: list[Structure]) -> list[tuple[int, int]]:
    """Pairs of the same reduced formula."""
    buckets: dict[str, list[int]] = defaultdict(list)
    for i, structure in enumerate(structures):
        buckets[structure.composition.reduced_formula].append(i)
    return [pair for members in buckets.values() for pair in itertools.combinations(members, 2)]


def time_of_all_pairs(
    structures: list[Structure], matcher: StructureMatcher, rng: np.random.Generator
) -> tuple[float, int]:
    """Estimated seconds of ``fit`` on every pair, and matches among the pairs sampled."""
    n, matched, seconds = len(structures), 0, 0.0
    for _ in range(SAMPLED_PAIRS):
        i, j = rng.choice(n, 2, replace=False)
        start = time.process_time()
        matched += matcher.fit(structures[i], structures[j])
        seconds += time.process_time() - start
    return seconds / SAMPLED_PAIRS * n * (n - 1) / 2, matched


def groups_of_pymatgen(structures: list[Structure], matcher: StructureMatcher) -> tuple[np.ndarray, float]:
    """Representative of each structure by ``group_structures``, and the seconds it took."""
    for place, structure in enumerate(structures):
        structure.properties["place"] = place
    start = time.process_time()
    groups = matcher.group_structures(structures)
    seconds = time.process_time() - start
    found = np.zeros(len(structures), dtype=np.int64)
    for group in groups:
        places = [s.properties["place"] for s in group]
        found[places] = min(places)
    return found, seconds


def compare(
    name: str, sample: list[RealStructure], tolerances: tuple[float, float, float], seed: int
) -> dict[str, Any]:
    """Agreement and times on one data set."""
    ltol, stol, angle_tol = tolerances
    ours, theirs = Matcher(*tolerances), StructureMatcher(ltol=ltol, stol=stol, angle_tol=angle_tol)
    structures = [unit_cell_to_pymatgen(s.cell) for s in sample]
    with tempfile.TemporaryDirectory() as folder:
        candidates = store_candidates([s.cell for s in sample], folder).candidates
        start = time.process_time()
        table = candidates.columns(["is_encoded", "formula"])
        keys = crystal_keys(table)
        found = match_set(candidates, keys, ours)
        seconds = time.process_time() - start
    estimated, matched_elsewhere = time_of_all_pairs(structures, theirs, np.random.default_rng(seed))
    groups, group_seconds = groups_of_pymatgen(structures, theirs)

    pairs = formula_pairs(structures)
    cells = [reduce_cell(s.cell) for s in sample]
    start = time.process_time()
    reduced = [s.get_reduced_structure().get_primitive_structure() for s in structures]
    pair_seconds, differ, matches = time.process_time() - start, 0, 0
    for i, j in pairs:
        start = time.process_time()
        expected = theirs.fit(reduced[i], reduced[j], skip_structure_reduction=True)
        pair_seconds += time.process_time() - start
        matches += expected
        differ += ours.fits(cells[i], cells[j]) != expected
    all_pairs = len(sample) * (len(sample) - 1) // 2
    return {
        "data": name,
        "tolerances": tolerances,
        "crystals": len(sample),
        "not_encoded": int((~encoded).sum()),
        "pairs": all_pairs,
        "pairs_of_a_formula": len(pairs),
        "matches": matches,
        "matches_in_sample_of_all_pairs": matched_elsewhere,
        "differ": differ,
        "agreement": 1 - differ / all_pairs,
        "agreement_of_a_formula": 1 - differ / max(1, len(pairs)),
        "uniqueness": float((found.representative == np.arange(len(sample))).mean()),
        "uniqueness_pymatgen": float((groups == np.arange(len(sample))).mean()),
        "crystals_in_other_groups": int((found.representative[encoded] != groups[encoded]).sum()),
        "seconds": seconds,
        "seconds_all_pairs_estimated": estimated,
        "seconds_pairs_of_a_formula": pair_seconds,
        "seconds_group_structures": group_seconds,
        "ratio_all_pairs": estimated / seconds,
        "ratio_pairs_of_a_formula": pair_seconds / seconds,
        "ratio_group_structures": group_seconds / seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of Parquet files")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    parser.add_argument("--perovskites", type=int, default=10_000)
    parser.add_argument("--carbons", type=int, default=1000)
    parser.add_argument("--tolerances", nargs="+", choices=list(TOLERANCES), default=["default"])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    run = describe_run(**vars(options))
    print_run(run)
    results = []
    for name, size in (("perov_5", options.perovskites), ("carbon_24", options.carbons)):
        if not size:
            continue
        sample = sample_structures(options.data, size=size, seed=options.seed, files=(name,))
        for kind in options.tolerances:
            figures = compare(name, sample, TOLERANCES[kind], options.seed)
            results.append(figures)
            print(
                f"{name} ({figures['crystals']:,} crystals, {figures['pairs_of_a_formula']:,} pairs of a formula, "
                f"tolerances {kind}): agreement {figures['agreement']:.6%} of all pairs, "
                f"{figures['agreement_of_a_formula']:.4%} of those of a formula; unique "
                f"{figures['uniqueness']:.4%}, pymatgen {figures['uniqueness_pymatgen']:.4%}, "
                f"{figures['crystals_in_other_groups']} crystals in other groups; {figures['seconds']:.1f} s, "
                f"{figures['ratio_all_pairs']:.0f} x faster than all pairs (estimated from {SAMPLED_PAIRS:,}), "
                f"{figures['ratio_pairs_of_a_formula']:.1f} x than all pairs of a formula, "
                f"{figures['ratio_group_structures']:.1f} x than group_structures",
                flush=True,
            )
            write_json(options.out, {**run, "results": results})


if __name__ == "__main__":
    main()
