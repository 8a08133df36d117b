"""Measure how long ``import nucleate`` and ``nucleate --help`` take in a fresh interpreter.

Fails beyond the limits.

Example: python benchmarks/import_time.py
"""

from __future__ import annotations

import subprocess
import sys
import time

# Command, seconds. The best of several runs: the first pays for a cold disk cache, a busy machine for the
# others.
LIMITS = {
    "import nucleate": ([sys.executable, "-c", "import nucleate"], 0.5),
    "nucleate --help": ([sys.executable, "-m", "nucleate", "--help"], 1.0),
}
REPEATS = 5


def best_time(command: list[str]) -> float:
    """Seconds of the fastest of several runs of ``command``, start of the interpreter included."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> int:
    too_slow = False
    for name, (command, limit) in LIMITS.items():
        seconds = best_time(command)
        too_slow |= seconds >= limit
        print(f"{name:16s} {seconds:.3f} s (limit {limit} s)")
    return int(too_slow)


if __name__ == "__main__":
    sys.exit(main())
