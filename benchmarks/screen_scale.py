"""Dedupe and hull with known energies at growing numbers of candidates: time, memory, and what a second worker gives.

    python benchmarks/screen_scale.py --data ../shared/data --work scale --numbers 5000 10000 20000 100000 --workers 1 2

Candidates are made from the real crystals of MP-20, JARVIS-DFT and WBM, in the order of a seed: three in ten are copies
(another cell of the same crystal, strained by at most 1 %), the others have elements swapped for neighbours in the
periodic table, each with a known energy; the hull is that of the
formation energies of crystals of MP-20, with elements at zero. Every run is a fresh ``nucleate screen`` in
processes of its own. Wall time is that of the command, processor time that of all its processes; memory is sampled over
the whole tree of processes (the sum counts shared pages once for each process) and for the largest of them.

With ``--copies 2`` two runs of one worker also work side by side, each on all candidates. They share nothing but the
machine: twice the time of one run alone over the time of both together is what two workers could reach at most there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from nucleate.data import build_store

ENERGY = "formation_energy_per_atom"
SOURCES = (("mp_20", ENERGY), ("jarvis_dft3d", "formation_energy_peratom"), ("wbm", ENERGY))
COPIES = 0.3
_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "numbers": pa.list_(pa.int64()),
        "lattice": pa.list_(pa.float64()),
        "frac_coords": pa.list_(pa.float64()),
        ENERGY: pa.float64(),
    }
)
_NEIGHBOURS = [  # elements that stand in for each other
    (3, 11, 19, 37, 55), (4, 12, 20, 38, 56), (21, 39, 57, 71), (22, 40, 72), (23, 41, 73), (24, 42, 74),
    (25, 43, 75), (26, 44, 76), (27, 45, 77), (28, 46, 78), (29, 47, 79), (30, 48, 80), (5, 13, 31, 49, 81),
    (6, 14, 32, 50, 82), (7, 15, 33, 51, 83), (8, 16, 34, 52), (9, 17, 35, 53), (58, 59, 60, 62, 64, 66, 68),
]  # fmt: skip


def write_candidates(data: Path, path: Path, number: int, *, seed: int) -> None:
    """A table of candidates; a smaller one is the beginning of a larger one."""
    rng = np.random.default_rng(seed)
    crystals = []
    for name, energy in SOURCES:
        table = pq.read_table(data / f"{name}.parquet", columns=["numbers", "lattice", "frac_coords", energy])
        for row in table.to_pylist():
            if row[energy] is not None and len(row["numbers"]) <= 20:
                crystals.append((row["numbers"], row["lattice"], row["frac_coords"], row[energy]))
    swaps = {z: group for group in _NEIGHBOURS for z in group}
    made: list[dict[str, Any]] = []
    with pq.ParquetWriter(path, _SCHEMA, compression="zstd") as writer:
        for first in range(0, number, 2000):
            rows = []
            for index in range(first, min(first + 2000, number)):
                numbers, lattice, coords, energy = crystals[rng.integers(len(crystals))]
                if made and rng.random() < COPIES:
                    old = made[rng.integers(len(made))]
                    scale = 1 + rng.uniform(-0.01, 0.01)
                    row = {**old, "lattice": (np.array(old["lattice"]) * scale).tolist()}
                else:
                    swapped = [z for z in set(numbers) if z in swaps and rng.random() < 0.5]
                    swap = {z: int(rng.choice(swaps[z])) for z in swapped}
                    row = {
                        "numbers": [swap.get(z, z) for z in numbers],
                        "lattice": lattice,
                        "frac_coords": coords,
                        ENERGY: energy + abs(rng.normal(0, 0.05)),
                    }
                    made.append(row)
                    if len(made) > 5000:
                        made.pop(0)
                rows.append({**row, "id": f"c{index}"})
            writer.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA))


class Watch(threading.Thread):
    """Memory of a tree of processes while it lives, and the processor time of each kind of process in it."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._root = psutil.Process(pid)
        self._seconds: dict[int, float] = {}
        self._kinds: dict[int, str] = {}
        self.total = 0
        self.largest: Counter[str] = Counter()
        self.done = False

    def run(self) -> None:
        while not self.done:
            total = 0
            try:
                for process in (self._root, *self._root.children(recursive=True)):
                    with process.oneshot():
                        kind = "driver" if process == self._root else _kind(process)
                        self._kinds[process.pid] = kind  # a new process has its command a moment later
                        size, times = process.memory_info().rss, process.cpu_times()
                        self._seconds[process.pid] = times.user + times.system
                        self.largest[kind] = max(self.largest[kind], size)
                        total += size
            except psutil.Error:
                pass
            self.total = max(self.total, total)
            time.sleep(0.5)

    @property
    def seconds(self) -> dict[str, float]:
        """Processor time by kind of process."""
        found: Counter[str] = Counter()
        for pid, seconds in self._seconds.items():
            found[self._kinds[pid]] += seconds
        return {kind: round(seconds, 1) for kind, seconds in found.items()}


def _kind(process: psutil.Process) -> str:
    command = " ".join(process.cmdline())
    if "isolated_worker" in command:
        return "isolated"
    return "worker" if "spawn_main" in command else "helper"


def side_by_side(table: Path, store: Path, out: Path, copies: int) -> dict[str, Any]:
    """Several runs of one worker at the same time: the wall time until all are done, and all their processor time."""
    with ThreadPoolExecutor(copies) as pool:
        runs = list(pool.map(lambda copy: measure(table, store, Path(f"{out}-{copy}"), 1), range(copies)))
    wall, seconds = max(run["wall_s"] for run in runs), sum(run["cpu_s"] for run in runs)
    return {**runs[0], "wall_s": wall, "cpu_s": round(seconds, 1)}


def measure(table: Path, store: Path, out: Path, workers: int) -> dict[str, Any]:
    command = [
        sys.executable,
        "-m",
        "nucleate",
        "screen",
        str(table),
        "--out",
        str(out),
        "--reference",
        str(store),
    ]
    command += ["--steps", "dedupe,hull", "--energy-column", ENERGY, "--diagrams", "0"]
    command += ["--set", "hull.formation=true", "--workers", str(workers)]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    watch = Watch(process.pid)
    watch.start()
    code = process.wait()
    wall = time.perf_counter() - start
    watch.done = True
    watch.join()
    if code:
        raise SystemExit(f"the screening ended with code {code}")
    run = json.loads((out / "run.json").read_text())
    return {
        "wall_s": round(wall, 1),
        "cpu_s": round(sum(watch.seconds.values()), 1),
        "cpu_s_by_kind": watch.seconds,
        "largest_process_MB": {kind: round(size / 1e6) for kind, size in watch.largest.items()},
        "all_processes_MB": round(watch.total / 1e6),
        "load": round(os.getloadavg()[0], 1),
        "steps": {step["step"]: [step["given"], step["passed"]] for step in run["steps"]},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--numbers", type=int, nargs="+", default=[5000, 10_000, 20_000, 100_000])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--copies", type=int, default=1, help="runs of one worker side by side")
    parser.add_argument("--references", type=int, default=6000, help="crystals of MP-20 in the hull")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    store = arguments.work / "reference"
    if not (store / "manifest.json").exists():
        source = pq.read_table(
            arguments.data / "mp_20.parquet",
            columns=["material_id", "numbers", "lattice", "frac_coords", ENERGY],
        )
        pq.write_table(source.slice(0, arguments.references), arguments.work / "reference.parquet")
        build_store(arguments.work / "reference.parquet", store)
    results = arguments.work / "results.jsonl"
    done = set()
    if results.exists():
        rows = map(json.loads, results.read_text().splitlines())
        done = {(row["n"], row["workers"], row["copies"]) for row in rows}
    for number in arguments.numbers:
        table = arguments.work / f"candidates-{number}.parquet"
        if not table.exists():
            write_candidates(arguments.data, table, number, seed=arguments.seed)
        copies = [(1, arguments.copies)] if arguments.copies > 1 else []
        for workers, copy in [*((workers, 1) for workers in arguments.workers), *copies]:
            if (number, workers, copy) in done:
                continue
            out = arguments.work / f"screened-{number}-{workers}-{time.time_ns()}"
            found = (
                measure(table, store, out, workers) if copy == 1 else side_by_side(table, store, out, copy)
            )
            row = {"n": number, "workers": workers, "copies": copy, **found}
            with results.open("a") as file:
                file.write(json.dumps(row) + "\n")
    for line in results.read_text().splitlines():
        row = json.loads(line)
        each = 1000 * row["cpu_s"] / row["n"] / row["copies"]
        what = f"{row['workers']} workers" if row["copies"] == 1 else f"{row['copies']} runs side by side"
        print(
            f"{row['n']:8,d} candidates, {what}: {row['wall_s']:.1f} s wall, {row['cpu_s']:.1f} s processor "
            f"({each:.2f} ms each; {row['cpu_s_by_kind']}), {row['all_processes_MB']} MB in all (largest "
            f"{row['largest_process_MB']}), load {row['load']}; {row['steps']}"
        )


if __name__ == "__main__":
    main()
