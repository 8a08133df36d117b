"""A funnel whose calculators fail and whose workers and driver are killed: is every candidate accounted for once?

    python benchmarks/screen_faults.py --work faults --count 200 --share 0.05 --workers 2

Candidates are binary alloys of the metals EMT knows, strained at random. Of them a share raises, hangs, gives NaN or
kills its process, each kind a quarter, by a hash of the candidate's name (``FaultyCalculator``). While the funnel works
a worker is killed with SIGKILL now and then; the driver is killed after a third and after two thirds of the verdicts,
and started again. Reported is whether every candidate has one row, whether exactly those that fail by design failed,
each with its own reason, and how often a sound candidate was begun again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import write

DIARY, SHARE = "SCREEN_FAULTS_DIARY", "SCREEN_FAULTS_SHARE"
KINDS = ("raises", "hangs", "nan", "dies")
METALS = ("Ni", "Cu", "Pd", "Ag", "Pt", "Au")
REASONS = {
    "raises": "no convergence on purpose",
    "hangs": "and stopped",
    "nan": "not finite",
    "dies": "killed by signal 9",
}


def fate(name: str, share: float) -> str:
    """What befalls the candidate of a name; empty for nothing."""
    number = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") / 2**64
    return KINDS[int(number / share * len(KINDS))] if number < share else ""


class FaultyCalculator(EMT):
    """EMT that fails by the name of the candidate, which it knows by its elements and first volume."""

    def calculate(self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = ()) -> None:
        folder = Path(os.environ[DIARY])
        names = json.loads((folder / "names.json").read_text())
        name = names.get(fingerprint(atoms))
        if name is not None:
            with (folder / f"{os.getpid()}.diary").open("a") as file:
                file.write(f"{name}\n")
        what = fate(name, float(os.environ[SHARE])) if name is not None else ""
        if what == "raises":
            raise RuntimeError(REASONS["raises"])
        if what == "hangs":
            time.sleep(10_000)
        if what == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        super().calculate(atoms, properties, system_changes)
        if what == "nan":
            self.results["energy"] = float("nan")


def fingerprint(atoms: Atoms) -> str:
    """Elements and volume per atom of a cell, the same for its primitive and conventional cell."""
    symbols = Counter(atoms.get_chemical_symbols())
    shares = {symbol: count / len(atoms) for symbol, count in sorted(symbols.items())}
    return json.dumps([shares, f"{atoms.get_volume() / len(atoms):.6f}"])


def write_candidates(folder: Path, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    names: dict[str, str] = {}
    images = []
    for index in range(count):
        atoms = bulk("Cu", "fcc", a=4.0, cubic=True)
        one, other = rng.choice(METALS, 2, replace=False)
        ones = int(rng.integers(1, 4))
        atoms.set_chemical_symbols([one] * ones + [other] * (4 - ones))
        atoms.set_cell(atoms.cell * rng.uniform(0.97, 1.03), scale_atoms=True)
        atoms.info["name"] = f"c{index:05d}"
        names[fingerprint(atoms)] = f"candidates-{index}"
        images.append(atoms)
    write(folder / "candidates.extxyz", images)
    (folder / "names.json").write_text(json.dumps(names))


def start(arguments: argparse.Namespace) -> subprocess.Popen[bytes]:
    folder = arguments.work.resolve()
    command = [sys.executable, "-m", "nucleate", "screen", str(folder / "candidates.extxyz")]
    command += ["--out", str(folder / "screened"), "--steps", "relax", "--set", "relax.check=false"]
    command += ["--potential", "screen_faults:FaultyCalculator", "--timeout", str(arguments.timeout)]
    command += ["--workers", str(arguments.workers)]
    paths = os.pathsep.join([str(Path(__file__).resolve().parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, DIARY: str(folder), SHARE: str(arguments.share), "PYTHONPATH": paths}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)


def num_verdicts(work: Path) -> int:
    files = [*work.glob("results/*.jsonl"), *work.glob("tasks/*/*.jsonl")]
    total = 0
    for path in files:
        try:
            total += path.read_bytes().count(b"\n")
        except FileNotFoundError:  # taken in meanwhile
            continue
    return total


def kill_a_worker(driver: subprocess.Popen[bytes], rng: np.random.Generator) -> str:
    """Kill a Dask worker or an isolated process of the run; which kind it was."""
    try:
        children = psutil.Process(driver.pid).children(recursive=True)
        chosen = [
            (kind, child)
            for child in children
            for kind, word in (("isolated process", "isolated_worker"), ("Dask worker", "spawn_main"))
            if word in " ".join(child.cmdline())
        ]
        if not chosen:
            return ""
        kind, child = chosen[int(rng.integers(len(chosen)))]
        child.kill()
    except psutil.Error:
        return ""
    return kind


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=5.0)
    parser.add_argument("--kill-every", type=float, default=20.0, help="seconds between kills of workers")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(arguments.seed)
    write_candidates(arguments.work, arguments.count, arguments.seed)
    work = arguments.work / "screened" / "work"
    killed: Counter[str] = Counter()
    begun = time.perf_counter()
    for share in (1 / 3, 2 / 3, 2.0):
        driver = start(arguments)
        last = time.monotonic()
        while driver.poll() is None:
            time.sleep(0.2)
            if time.monotonic() - last > arguments.kill_every:
                last = time.monotonic()
                killed[kill_a_worker(driver, rng)] += 1
            if num_verdicts(work) >= share * arguments.count:
                driver.kill()
                driver.wait()
                killed["driver"] += 1
        print(f"driver ended with code {driver.returncode}, {num_verdicts(work)} verdicts are there")
    rows = pq.read_table(arguments.work / "screened" / "crystals.parquet").to_pylist()
    names = Counter(row["id"] for row in rows)
    fates = {row["id"]: fate(row["id"], arguments.share) for row in rows}
    right = [
        row["status"] == "passed" if not fates[row["id"]] else REASONS[fates[row["id"]]] in row["reason"]
        for row in rows
    ]
    print(f"{len(rows)} rows of {arguments.count} candidates, {sum(n > 1 for n in names.values())} twice")
    print(f"fates: {dict(Counter(fates.values()))}; killed from outside: {dict(killed)}")
    print(f"status and reason as designed: {sum(right)} of {len(rows)}")
    for row, fine in zip(rows, right):
        if not fine:
            print(
                f"  {row['id']}: meant to be {fates[row['id']] or 'sound'}, is {row['status']}: {row['reason']}"
            )
    starts = Counter()
    for path in arguments.work.glob("*.diary"):
        starts.update(path.read_text().splitlines())
    again = {name: n for name, n in starts.items() if n > 1 and not fates[name]}
    print(
        f"sound candidates begun more than once (they were under way when something was killed): {len(again)}"
    )
    print(f"{time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
