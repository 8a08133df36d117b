"""Uniqueness and novelty of other generators' samples, by nucleate and by plain loops over pymatgen.

The reference is the MP-20 part of the data folder (splits train and val). The independent computation knows nothing of
nucleate: ``StructureMatcher.group_structures`` for uniqueness, and for novelty ``StructureMatcher.fit(sample, record)``
for every record with the same reduced formula, structures as the files give them. nucleate counts crystals that it
cannot encode (atoms on top of each other) as neither unique nor novel; the shares are printed with and without that.

Example: python benchmarks/peer_novelty.py --data ../shared/data --work out/peers --out peer_novelty.json
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyarrow.parquet as pq
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure

from nucleate.crystal.convert import unit_cell_to_pymatgen
from nucleate.data import Store, build_store
from nucleate.evaluation.context import Context
from nucleate.evaluation.novelty import family
from nucleate.evaluation.reading import store_candidates
from nucleate.evaluation.reference import Reference
from real_structures import RealStructure, describe_run, print_run, read_structures, write_json

METHODS = ("CrystalFormer", "FlowMM")


def samples_of(data: Path, method: str) -> list[RealStructure]:
    """The samples of one generator, in the order of the file."""
    return [s for s in read_structures(data / "peer_samples.parquet") if method.lower() in s.id.lower()]


def reference_store(data: Path, work: Path) -> tuple[Store, list[Structure]]:
    """MP-20 train and val as a store, and the structures as the file gives them."""
    table = pq.read_table(data / "mp_20.parquet")
    kept = np.flatnonzero(np.isin(table.column("split").to_pylist(), ["train", "val"]))
    columns = ["material_id", "numbers", "lattice", "frac_coords"]
    if not (work / "mp_20" / "manifest.json").exists():
        work.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.take(kept).select(columns), work / "mp_20.parquet")
        build_store(work / "mp_20.parquet", work / "mp_20")
    raw = [unit_cell_to_pymatgen(s.cell) for s in read_structures(data / "mp_20.parquet", rows=kept.tolist())]
    return Store.open(work / "mp_20"), raw


def plain(samples: list[Structure], known: list[Structure]) -> tuple[np.ndarray, np.ndarray]:
    """(unique, novel) of each sample by loops over pymatgen."""
    matcher = StructureMatcher()
    for place, structure in enumerate(samples):
        structure.properties["place"] = place
    unique = np.zeros(len(samples), dtype=bool)
    for group in matcher.group_structures(samples):
        unique[min(s.properties["place"] for s in group)] = True
    by_formula: dict[str, list[Structure]] = defaultdict(list)
    for structure in known:
        by_formula[structure.composition.reduced_formula].append(structure)
    novel = [not any(matcher.fit(s, k) for k in by_formula[s.composition.reduced_formula]) for s in samples]
    return unique, np.array(novel)


def compare(method: str, data: Path, work: Path, store: Store, known: list[Structure]) -> dict[str, Any]:
    """Shares by both computations and the crystals on which they differ."""
    samples = samples_of(data, method)
    candidates = store_candidates([s.cell for s in samples], str(work / method)).candidates
    context = Context(Reference(store, work / "cache"), cache=work / "blocks")
    start = time.process_time()
    columns = family().across(candidates, candidates.base_table(), context)
    seconds = time.process_time() - start
    start = time.process_time()
    unique, novel = plain([unit_cell_to_pymatgen(s.cell) for s in samples], known)
    plain_seconds = time.process_time() - start
    encoded = np.array(candidates.base_table().column("is_encoded").to_pylist())
    ours = {name: np.array(columns[name], dtype=bool) for name in ("unique", "novel", "unique_and_novel")}
    theirs = {"unique": unique, "novel": novel, "unique_and_novel": unique & novel}
    figures: dict[str, Any] = {
        "method": method,
        "crystals": len(samples),
        "not_encoded": int((~encoded).sum()),
    }
    for name, flags in ours.items():
        figures[name] = float(flags.mean())
        figures[f"{name}_pymatgen"] = float(theirs[name].mean())
        # Crystals that cannot be encoded (atoms on top of each other) count against the generator here.
        figures[f"{name}_pymatgen_of_encoded"] = float((theirs[name] & encoded).mean())
        figures[f"{name}_differ_not_encoded"] = int((flags != theirs[name])[~encoded].sum())
        figures[f"{name}_differ"] = [samples[i].id for i in np.flatnonzero(flags != theirs[name])]
    return {**figures, "seconds": seconds, "seconds_pymatgen": plain_seconds}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of Parquet files")
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for the store; what is there is used"
    )
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    run = describe_run(**vars(options))
    print_run(run)
    store, known = reference_store(options.data, options.work)
    results = []
    for method in METHODS:
        figures = compare(method, options.data, options.work, store, known)
        results.append(figures)
        print(f"{method}: {figures['crystals']} crystals, {figures['not_encoded']} not encoded, ", end="")
        print(f"against {len(store):,} records")
        for name in ("unique", "novel", "unique_and_novel"):
            print(
                f"  {name}: {figures[name]:.4f}, pymatgen {figures[f'{name}_pymatgen']:.4f}, "
                f"{figures[f'{name}_pymatgen_of_encoded']:.4f} where those not encoded count against the generator; "
                f"differ on {len(figures[f'{name}_differ'])}, {figures[f'{name}_differ_not_encoded']} of them not "
                f"encoded {figures[f'{name}_differ'][:5]}"
            )
        print(f"  {figures['seconds']:.1f} s, pymatgen {figures['seconds_pymatgen']:.1f} s", flush=True)
        write_json(options.out, {**run, "results": results})


if __name__ == "__main__":
    main()
