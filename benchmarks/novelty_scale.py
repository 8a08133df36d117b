"""Time and memory of uniqueness and novelty of a large set against a large reference store.

Real structures are encoded once; then both sets are multiplied to the sizes asked for: every copy has its elements
replaced by others of their family (alkali metals, halogens, lanthanides, ...), its cell strained and its atoms
moved. A third of the set repeats the replacements of the reference (and so most often one of its records), the rest
has its own. Stores are made before the clock starts; what is timed is the index of formulas, reading, reduction of
cells and every comparison (``nucleate.evaluation.set_matching.match_set``), on ``--workers`` processes.

Processor time of all processes stands beside the wall time: on a busy machine the former, divided by the number of
workers, says what the latter would be.

Example: python benchmarks/novelty_scale.py --data ../shared/data --work out/novelty --crystals 100000 \
    --references 1000000 --workers 2 --out novelty_scale.json
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from nucleate.crystal.species import element_symbol
from nucleate.data import Store, build_store
from nucleate.data.folder import LocalFolder
from nucleate.data.shard_files import write_shard
from nucleate.evaluation.candidate_store import CandidateStore, Part, write_index
from nucleate.evaluation.formula_index import crystal_keys, reference_keys
from nucleate.evaluation.matcher import Matcher
from nucleate.evaluation.reading import store_candidates
from nucleate.evaluation.reference import Reference
from nucleate.evaluation.set_matching import NONE, match_set
from nucleate.evaluation.workers import Workers
from real_structures import describe_run, print_run, sample_structures, write_json

SOURCES = ("mp_20", "mpts_52", "jarvis_dft3d", "wbm", "mp_40")
FAMILIES = (
    (3, 11, 19, 37, 55),
    (4, 12, 20, 38, 56),
    (9, 17, 35, 53),
    (8, 16, 34, 52),
    (7, 15, 33, 51),
    (6, 14, 32, 50),
    (5, 13, 31, 49),
    tuple(range(21, 31)),
    (39, *range(40, 49)),
    tuple(range(72, 81)),
    tuple(range(57, 72)),
)
SYMBOLS = {element_symbol(z): z for z in range(1, 119)}


def replacement(rng: np.random.Generator | None) -> np.ndarray:
    """New atomic number of each element, a permutation inside its family; none where ``rng`` is None."""
    table = np.arange(119)
    if rng is not None:
        for members in FAMILIES:
            table[list(members)] = rng.permutation(members)
    return table


def replaced_formula(formula: str, table: np.ndarray) -> str:
    """The reduced formula with its elements replaced, in alphabetical order again."""
    parts = re.findall(r"([A-Z][a-z]?)(\d*)", formula)
    return "".join(sorted(element_symbol(int(table[SYMBOLS[symbol]])) + count for symbol, count in parts))


def with_values(column: pa.ChunkedArray, change: Any) -> pa.Array:
    """A list column with its flat values changed."""
    lists = column.combine_chunks()
    values = change(lists.flatten().to_numpy(zero_copy_only=False))
    return pa.ListArray.from_arrays(pa.array(np.r_[0, np.cumsum(lists.value_lengths())], pa.int32()), values)


def set_columns(table: pa.Table, columns: dict[str, Any]) -> pa.Table:
    """The table with some columns replaced."""
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(
            place, table.schema.field(name), pa.array(values, table.schema.field(name).type)
        )
    return table


def make_reference(base: Store, out: Path, records: int, seed: int) -> None:
    """A store of ``records`` varied copies of the records of another."""
    folder = LocalFolder(out)
    shards, written = [], 0
    copy = 0
    while written < records:
        rng = np.random.default_rng([seed, copy])
        table = replacement(rng if copy else None)
        for number, batch in enumerate(base.iter_batches(batch_size=8192)):
            batch = batch.slice(0, min(batch.num_rows, records - written))
            if not batch.num_rows:
                break
            columns: dict[str, Any] = {
                "id": [f"copy-{copy}-{name}" for name in batch.column("id").to_pylist()],
                "formula": [replaced_formula(f, table) for f in batch.column("formula").to_pylist()],
                "atomic_numbers": with_values(
                    batch.column("atomic_numbers"), lambda z, t=table: pa.array(t[z], pa.uint8())
                ),
                "bucket_key": [None] * batch.num_rows,  # of other elements; nothing here reads it
            }
            if copy:
                columns["lattice_params"] = with_values(
                    batch.column("lattice_params"),
                    lambda v, r=rng: pa.array(v + r.normal(size=v.shape) * 0.01),
                )
                columns["free_coords"] = with_values(
                    batch.column("free_coords"),
                    lambda v, r=rng: pa.array(np.where(v == 0, 0, v + r.normal(size=v.shape) * 0.003)),
                )
            name = f"shards/{copy:03d}-{number:03d}.parquet"
            shards.append(write_shard(folder, name, set_columns(batch, columns)))
            written += batch.num_rows
        copy += 1
    manifest = replace(
        base.manifest,
        num_records=written,
        shards=tuple(shards),
        content_hash=f"varied-{seed}-{records}-{base.content_hash}"[:64],
        split_counts={"train": written},
    )
    folder.write_bytes("manifest.json", manifest.to_json().encode())


def make_candidates(base: CandidateStore, out: Path, crystals: int, seed: int) -> CandidateStore:
    """A set of ``crystals`` varied copies of candidates."""
    folder = LocalFolder(out)
    parts, written, copy = [], 0, 0
    while written < crystals:
        # Every third copy has the replacements of a copy of the reference.
        rng = np.random.default_rng([seed, copy // 3] if copy % 3 == 0 else [seed + 1, copy])
        table = replacement(rng if copy else None)
        for number, part in enumerate(base.parts):
            rows = pq.read_table(Path(base.location) / part.file)
            rows = rows.slice(0, min(rows.num_rows, crystals - written))
            if not rows.num_rows:
                break
            lengths = rows.column("cell.atomic_numbers").combine_chunks().value_lengths().to_numpy()
            scale = np.repeat(1 + rng.normal(size=rows.num_rows) * 0.01, 9)
            move = rng.normal(size=3 * int(lengths.sum())) * 0.002
            numbers = {
                name: with_values(rows.column(name), lambda z, t=table: pa.array(t[z], pa.uint8()))
                for name in ("atomic_numbers", "cell.atomic_numbers")
            }
            columns = {
                "formula": [f and replaced_formula(f, table) for f in rows.column("formula").to_pylist()],
                "cell.lattice": with_values(rows.column("cell.lattice"), lambda v, s=scale: pa.array(v * s)),
                "cell.frac_coords": with_values(
                    rows.column("cell.frac_coords"), lambda v, m=move: pa.array(v + m)
                ),
                **numbers,
            }
            name = f"{copy:03d}-{number:04d}.parquet"
            with folder.writing(name) as path:
                pq.write_table(set_columns(rows, columns), path, compression="zstd")
            parts.append(Part(name, rows.num_rows, f"{seed}-{copy}-{number}"))
            written += rows.num_rows
        copy += 1
    write_index(folder, parts)
    return CandidateStore.open(str(out))


def prepare(options: argparse.Namespace) -> tuple[Store, CandidateStore]:
    """Real structures encoded as a store and as a set; kept in the work folder."""
    work: Path = options.work
    if options.base is not None:
        base = Store.open(options.base)
        step = max(1, len(base) // options.distinct_candidates)
        cells = [base.crystal(i).unit_cell("primitive") for i in range(0, len(base), step)]
        return base, store_candidates(cells, str(work / "candidates")).candidates
    sample = sample_structures(options.data, size=options.distinct, seed=options.seed, files=SOURCES)
    if not (work / "base.parquet").exists():
        work.mkdir(parents=True, exist_ok=True)
        rows = {
            "id": [f"{s.file}-{s.row}" for s in sample],
            "numbers": [s.cell.atomic_numbers for s in sample],
            "lattice": [s.cell.lattice.ravel() for s in sample],
            "frac_coords": [s.cell.frac_coords.ravel() for s in sample],
        }
        pq.write_table(pa.table(rows), work / "base.parquet")
    if not (work / "base" / "manifest.json").exists():
        build_store(work / "base.parquet", work / "base")
    share = sample[:: max(1, round(len(sample) / options.distinct_candidates))]
    candidates = store_candidates([s.cell for s in share], str(work / "candidates")).candidates
    return Store.open(work / "base"), candidates


class PeakMemory:
    """Largest proportional memory (PSS, GB) of this process and its children, read when told."""

    def __init__(self) -> None:
        self.gb = 0.0

    def read(self, *_: object) -> None:
        total = 0
        process = psutil.Process()
        for one in [process, *process.children(recursive=True)]:
            try:
                total += one.memory_full_info().pss
            except psutil.Error:
                continue
        self.gb = max(self.gb, total / 1e9)


def cpu_seconds() -> float:
    """Processor time of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def measure(options: argparse.Namespace, store: Store, candidates: CandidateStore) -> dict[str, Any]:
    """Seconds, memory and shares of one comparison."""
    shutil.rmtree(options.work / "cache", ignore_errors=True)
    memory, start, cpu = PeakMemory(), time.perf_counter(), cpu_seconds()
    reference = Reference(store, options.work / "cache")
    known = reference_keys(reference)
    index_seconds = time.perf_counter() - start
    table = candidates.columns(["is_encoded", "formula"])
    keys = crystal_keys(table)
    with Workers(options.workers) as workers:

        def watched(function: Any, items: Any) -> Any:
            for count, result in enumerate(workers.map(function, items)):
                if count % 20 == 0:
                    memory.read()
                yield result

        found = match_set(
            candidates,
            keys,
            Matcher(),
            reference=store,
            reference_keys=known,
            map=watched,
        )
    seconds = time.perf_counter() - start
    encoded = found.representative != NONE
    unique = encoded & (found.representative == np.arange(len(encoded)))
    return {
        "crystals": len(candidates),
        "references": len(store),
        "seconds": seconds,
        "cpu_seconds": cpu_seconds() - cpu,
        "index_seconds": index_seconds,
        "peak_memory_gb": memory.gb,
        "with_formula_in_reference": float((found.num_reference > 0).mean()),
        "records_of_that_formula": float(found.num_reference[found.num_reference > 0].mean()),
        "uniqueness": float(unique.mean()),
        "novelty": float((encoded & (found.reference_row == NONE)).mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of Parquet files, not needed with --base")
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for the stores; what is there is used"
    )
    parser.add_argument("--crystals", type=int, nargs="+", default=[100_000])
    parser.add_argument(
        "--references", type=int, nargs="+", default=[1_000_000], help="as many as --crystals"
    )
    parser.add_argument(
        "--base", help="a store of real structures to multiply instead of encoding --distinct ones"
    )
    parser.add_argument("--distinct", type=int, default=20_000, help="real structures of the reference")
    parser.add_argument("--distinct-candidates", type=int, default=10_000, help="those the set is made of")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    options = parser.parse_args()
    if len(options.crystals) != len(options.references):
        raise SystemExit("--crystals and --references must have as many numbers")
    run = describe_run(**vars(options))
    print_run(run)
    base, some = prepare(options)
    results = []
    for crystals, records in zip(options.crystals, options.references):
        reference_folder, set_folder = options.work / f"reference-{records}", options.work / f"set-{crystals}"
        if not (reference_folder / "manifest.json").exists():
            make_reference(base, reference_folder, records, options.seed)
        if not (set_folder / "candidates.json").exists():
            make_candidates(some, set_folder, crystals, options.seed)
        store, candidates = Store.open(reference_folder), CandidateStore.open(str(set_folder))
        results.append(measure(options, store, candidates))
        print(json.dumps({k: round(v, 3) for k, v in results[-1].items()}), flush=True)
        write_json(options.out, {**run, "results": results})


if __name__ == "__main__":
    main()
