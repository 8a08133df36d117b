"""Trainings in two processes, run as a script: ``two_processes.py STORE FOLDER`` with configurations in FOLDER.

Every ``FOLDER/*.yaml`` is trained into a folder of its name; each rank writes what came of it to ``NAME.RANK.json``.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from nucleate.training.config import read_config
from nucleate.training.train import train


def outcome(store: str, config: Path, out: Path) -> dict[str, Any]:
    """What a training ends with, for this rank."""
    report = train(store, read_config(config), out=out)
    return {"costs": report.costs, "validation": report.validation, "num_non_finite": report.num_non_finite}


def main() -> None:
    """Train one configuration after the other: starting the processes takes longer than a training."""
    store, folder = sys.argv[1], Path(sys.argv[2])
    rank = os.environ.get("LOCAL_RANK", "0")
    for config in sorted(folder.glob("*.yaml")):
        found = outcome(store, config, folder / config.stem)
        (folder / f"{config.stem}.{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
