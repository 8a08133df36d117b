"""Memory and time of building a store of many records: bounded, and linear in the number of records.

Real structures, each time strained by up to 2 % and with atoms moved by up to 0.001 Å, are written to a
Parquet table in chunks; ``nucleate.data.build.build_store`` builds a store of a quarter, half and all of it in
a process of its own, whose memory (children included) is read off while it runs.

RSS counts pages shared between processes once for each of them; PSS shares them out. Both are reported; the
limit is for RSS. Beside the wall time stands the processor time, which tells linear growth on a busy machine too.

Example: python benchmarks/build_memory.py --data ../shared/data --records 500000 --out build_memory.json
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from real_structures import describe_run, print_run, sample_structures, write_json

LIMIT_GB = 2.0
CHUNK = 5000
DISTINCT = 10_000
STRUCTURE_SOURCES = ("mp_20", "wbm", "jarvis_dft3d", "perov_5")
BUILD = """
import json, resource, sys
from nucleate.data.build import build_store

if __name__ == "__main__":
    source, out, workers = sys.argv[1], sys.argv[2], int(sys.argv[3])
    report = build_store(source, out, workers=workers)
    counts = {"records": report.num_records, "rejected": report.num_rejected}
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(u.ru_utime + u.ru_stime for u in used)
    print(json.dumps({**counts, "seconds": report.seconds, "cpu_seconds": cpu}))
"""


def write_table(path: Path, *, data: Path, records: int, seed: int) -> None:
    """A Parquet table of perturbed real structures, in row groups of ``CHUNK``."""
    sample = sample_structures(data, size=min(DISTINCT, records), seed=seed, files=STRUCTURE_SOURCES)
    rng = np.random.default_rng(seed)
    schema = pa.schema(
        {
            "material_id": pa.string(),
            "numbers": pa.list_(pa.int64()),
            "lattice": pa.list_(pa.float64()),
            "frac_coords": pa.list_(pa.float64()),
            "energy": pa.float64(),
        }
    )
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for first in range(0, records, CHUNK):
            rows: dict[str, list[Any]] = {name: [] for name in schema.names}
            for number in range(first, min(first + CHUNK, records)):
                cell = sample[number % len(sample)].cell
                lattice = cell.lattice * (1 + rng.uniform(-0.02, 0.02))
                moves = rng.uniform(-1e-3, 1e-3, size=(cell.num_atoms, 3)) / 3**0.5
                rows["material_id"].append(f"record-{number}")
                rows["numbers"].append(cell.atomic_numbers)
                rows["lattice"].append(lattice.ravel())
                rows["frac_coords"].append((cell.frac_coords + moves @ np.linalg.inv(lattice)).ravel())
                rows["energy"].append(rng.normal())
            writer.write_table(pa.table(rows, schema=schema))


def memory_of(process: psutil.Process) -> tuple[float, float]:
    """(RSS, PSS) in GB of a process and all its children, PSS 0 where the system does not tell."""
    rss = pss = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            rss += one.memory_info().rss
            pss += getattr(one.memory_full_info(), "pss", 0)
        except psutil.Error:
            continue
    return rss / 1e9, pss / 1e9


def build(source: Path, out: Path, workers: int) -> dict[str, Any]:
    """Build a store in a process of its own: records, seconds, peak memory and memory over time."""
    script = out.parent / "build.py"
    script.write_text(BUILD)
    command = [sys.executable, str(script), str(source), str(out), str(workers)]
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    process = psutil.Process(child.pid)
    track: list[tuple[float, float, float]] = []
    while child.poll() is None:
        try:
            track.append((time.perf_counter() - start, *memory_of(process)))
        except psutil.Error:
            break
        time.sleep(0.5)
    text, _ = child.communicate()
    if child.returncode:
        raise SystemExit(f"the build ended with code {child.returncode}")
    result = json.loads(text.splitlines()[-1])
    peak_rss, peak_pss = (max(point[i] for point in track) for i in (1, 2))
    size = sum(f.stat().st_size for f in out.rglob("*") if f.is_file())
    thinned = [[round(v, 3) for v in point] for point in track[:: max(1, len(track) // 100)]]
    wall = time.perf_counter() - start
    peaks = {"peak_rss_gb": peak_rss, "peak_pss_gb": peak_pss}
    return {**result, **peaks, "wall": wall, "store_mb": size / 1e6, "track": thinned}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of Parquet files")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    parser.add_argument("--records", type=int, default=500_000)
    parser.add_argument("--fractions", type=float, nargs="*", default=[0.25, 0.5, 1.0])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where the table and the stores go for a while")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    run = describe_run(**vars(options))
    print_run(run)
    results = []
    print(
        f"{'records':>9s}{'rejected':>9s}{'seconds':>9s}{'CPU s':>9s}{'CPU ms each':>13s}{'peak RSS':>10s}"
        f"{'peak PSS':>10s}{'store':>10s}"
    )
    for fraction in options.fractions:
        records = round(options.records * fraction)
        folder = Path(tempfile.mkdtemp(dir=options.folder))
        try:
            write_table(folder / "table.parquet", data=options.data, records=records, seed=options.seed)
            result = build(folder / "table.parquet", folder / "store", options.workers)
        finally:
            shutil.rmtree(folder)
        results.append(result)
        each = result["cpu_seconds"] / records * 1e3
        print(
            f"{result['records']:9d}{result['rejected']:9d}{result['seconds']:9.1f}"
            f"{result['cpu_seconds']:9.1f}{each:13.3f}"
            f"{result['peak_rss_gb']:7.2f} GB{result['peak_pss_gb']:7.2f} GB{result['store_mb']:7.0f} MB",
            flush=True,
        )
    each = [r["cpu_seconds"] / (r["records"] + r["rejected"]) for r in results]
    print(f"processor time per record, last over first: {each[-1] / each[0]:.2f}")
    peak = max(r["peak_rss_gb"] for r in results)
    print(f"peak memory {peak:.2f} GB, limit {LIMIT_GB:g} GB: {'kept' if peak < LIMIT_GB else 'EXCEEDED'}")
    write_json(options.out, {"run": run, "results": results, "time_ratio": each[-1] / each[0]})


if __name__ == "__main__":
    main()
