"""Install torch without CUDA where there is no NVIDIA GPU; otherwise leave torch to the ordinary set-up.

On Linux the torch wheel on PyPI is the CUDA build: with its ``nvidia-*`` and ``triton`` dependencies it
brings several gigabytes that a machine without an NVIDIA GPU cannot use, and without them it does not import.
The package's name and version are the same for both builds, so neither a constraint nor an extra on nucleate
can choose. The CPU build lies on PyTorch's own package index under a local version (``2.13.0+cpu``), which
satisfies the lock file's ``torch==2.13.0``.

So: ask the configured index what it would give. If that wants CUDA and there is no NVIDIA GPU here, take the
CPU build from PyTorch's index; if that index cannot be reached, say so and go on with what the configured
index has. macOS and Windows wheels, and mirrors that carry a CPU build, need nothing of this.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CUDA_REQUIREMENT = re.compile(r"(nvidia|cuda|triton)\b", re.IGNORECASE)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lock", type=Path, help="the lock file that names torch's version")
    parser.add_argument("--cpu-index", default=CPU_INDEX, help="package index with torch's CPU builds")
    arguments = parser.parse_args()
    torch = locked_torch(arguments.lock)
    if not sys.platform.startswith("linux") or has_nvidia_gpu() or not index_gives_cuda(torch):
        return 0
    # Without dependencies: those come from the configured index, under the lock file's constraints.
    command = [*pip("install"), "--quiet", "--no-deps", "--retries", "1", "--timeout", "20"]
    result = subprocess.run(
        [*command, "--index-url", arguments.cpu_index, torch], stderr=subprocess.PIPE, text=True, check=False
    )
    if result.returncode != 0:
        reason = next(
            (line for line in reversed(result.stderr.splitlines()) if line.strip()), "no reason given"
        )
        print(
            f"There is no CPU build of {torch} on {arguments.cpu_index} ({reason}); installing the "
            "configured index's build instead, which brings several gigabytes of CUDA libraries.",
            file=sys.stderr,
        )
    return 0


def pip(command: str) -> list[str]:
    """The beginning of a pip command line for the interpreter that runs this script."""
    return [sys.executable, "-m", "pip", "--disable-pip-version-check", command]


def locked_torch(lock: Path) -> str:
    """The lock file's requirement for torch, such as ``torch==2.13.0``."""
    return next(line.strip() for line in lock.read_text().splitlines() if line.startswith("torch=="))


def has_nvidia_gpu() -> bool:
    """Whether an NVIDIA driver is at work on this machine."""
    return shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia/version").exists()


def index_gives_cuda(torch: str) -> bool:
    """Whether the configured index's torch depends on CUDA libraries; False if torch is installed already."""
    report = subprocess.run(
        [*pip("install"), "--quiet", "--dry-run", "--no-deps", "--report", "-", torch],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    wanted = [
        package["metadata"].get("requires_dist", []) for package in json.loads(report.stdout)["install"]
    ]
    return any(CUDA_REQUIREMENT.match(requirement) for requirements in wanted for requirement in requirements)


if __name__ == "__main__":
    sys.exit(main())
