"""Write requirements.lock: the version of everything that ``pip install -e .[dev]`` brings, resolved afresh.

The file holds names and versions only (no address of an index, no path), so that it works with any package
index as ``pip install --constraint requirements.lock``. As a constraint it installs nothing by itself: a line
for a package that another platform does not need is without effect there.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

# CUDA libraries belong to torch's build for one platform, not to nucleate.
PLATFORM_PACKAGE = re.compile(r"(nvidia|cuda|triton)\b")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lock", type=Path)
    parser.add_argument("--torch", help="torch's version; otherwise that of the present lock file is kept")
    arguments = parser.parse_args()
    torch = f"torch=={arguments.torch}" if arguments.torch else present_torch(arguments.lock)
    packages = resolve(torch)
    header = (
        "# Versions of every package that nucleate's development set-up brings. Written by `make lock`; "
        "used as a constraint.\n"
    )
    arguments.lock.write_text(
        header + "".join(f"{name}=={version}\n" for name, version in sorted(packages.items()))
    )
    print(f"{arguments.lock}: {len(packages)} packages")
    return 0


def present_torch(lock: Path) -> str:
    """The present lock file's requirement for torch: the version whose CPU build the tests have seen."""
    return next(line.strip() for line in lock.read_text().splitlines() if line.startswith("torch=="))


def resolve(torch: str) -> dict[str, str]:
    """Name and version of every package pip would install into an empty environment."""
    with tempfile.TemporaryDirectory() as folder:
        constraint = Path(folder, "torch.txt")
        constraint.write_text(torch + "\n")
        report = Path(folder, "report.json")
        command = [
            sys.executable,
            "-m",
            "pip",
            "--disable-pip-version-check",
            "install",
            "--quiet",
            "--dry-run",
        ]
        options = ["--ignore-installed", "--constraint", str(constraint), "--report", str(report)]
        subprocess.run([*command, *options, ".[dev]"], check=True)
        installs = [package["metadata"] for package in json.loads(report.read_text())["install"]]
    # PEP 503 names; a local version such as 2.13.0+cpu is one index's build of 2.13.0.
    versions = {re.sub(r"[-_.]+", "-", m["name"]).lower(): m["version"].split("+")[0] for m in installs}
    return {n: v for n, v in versions.items() if n != "nucleate" and not PLATFORM_PACKAGE.match(n)}


if __name__ == "__main__":
    sys.exit(main())
