"""Thousands of damaged structure files, tables and archives with good ones among them, read and encoded.

Every file is opened as a user's would be (``open_source``), read and encoded. Asked for: no exception, no
file that takes longer than --seconds, exactly one reason of one sentence for each damaged input, every good
crystal encoded. Then the whole folder is read once more as one source. All distinct reasons are listed, to be
judged by eye.

Example: python benchmarks/damaged_inputs.py --count 2000 --out damaged_inputs.json
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import tempfile
import time
import traceback
import warnings
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from damage import Damaged, damaged_files
from nucleate.data.cleaning import UNEXPECTED, Cleaned, EncodingSettings, clean
from nucleate.data.record import Rejection
from nucleate.data.sources import open_source
from nucleate.errors import NucleateError
from real_structures import describe_run, print_run, write_json

LONGEST_REASON = 500
# Marks of a message that was written for a programmer, not for a user.
_LEAK = re.compile(
    r"\b(?:[A-Z]\w+(?:Error|Exception|Warning|File)\b|Traceback|object at 0x|NoneType|out of range|line \d+, in )"
)


class TooSlowError(Exception):
    """A file took longer than allowed."""


@dataclass
class Outcome:
    """What one file, or one folder, gave."""

    num_good: int = 0
    reasons: list[str] = field(default_factory=list)
    crash: str | None = None
    seconds: float = 0.0


def _alarm(*_: Any) -> None:
    raise TooSlowError


def read_all(spec: Path, seconds: int) -> Outcome:
    """Every record of a source encoded, every reason kept."""
    outcome, settings = Outcome(), EncodingSettings()
    signal.signal(signal.SIGALRM, _alarm)
    signal.alarm(seconds)
    start = time.perf_counter()
    try:
        source = open_source(spec)
        for task in source.tasks():
            for item in source.read(task):
                if isinstance(item, Rejection):
                    outcome.reasons.append(item.reason)
                    continue
                result = clean(item, settings)
                if isinstance(result, Cleaned):
                    result.encoded.crystal.unit_cell()
                    outcome.num_good += 1
                else:
                    mark = "UNEXPECTED " if result.category == UNEXPECTED else ""
                    outcome.reasons.append(mark + result.reason)
    except NucleateError as error:
        outcome.reasons.append(str(error))
    except TooSlowError:
        outcome.crash = f"no end within {seconds} s"
    except Exception:
        outcome.crash = traceback.format_exc(limit=-3)
    finally:
        signal.alarm(0)
    outcome.seconds = time.perf_counter() - start
    return outcome


def faults(item: Damaged, outcome: Outcome) -> list[str]:
    """What is wrong with the outcome of one file, nothing where all is as it should be."""
    found = [f"crash: {outcome.crash}"] if outcome.crash else []
    if item.num_good >= 0 and outcome.num_good != item.num_good:
        found.append(f"{outcome.num_good} crystals encoded, {item.num_good} expected")
    if len(outcome.reasons) != item.num_bad:
        found.append(f"{len(outcome.reasons)} reasons, {item.num_bad} expected: {outcome.reasons[:3]}")
    for reason in outcome.reasons:
        if not reason.strip() or "\n" in reason or len(reason) > LONGEST_REASON or len(reason.split()) < 3:
            found.append(f"not one sentence: {reason[:200]!r}")
        if reason.startswith("UNEXPECTED") or _LEAK.search(reason):
            found.append(f"written for programmers: {reason[:200]}")
    return found


def pattern_of(reason: str) -> str:
    """A reason with its numbers left out, to count equal ones."""
    reason = re.sub(r"/\S+/", "", reason)
    return re.sub(r"[-+]?\d[\d.,e+-]*", "#", reason)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="not used: the inputs are made from the bundled crystals")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    parser.add_argument("--count", type=int, default=2000, help="number of damaged files")
    parser.add_argument("--seconds", type=int, default=30, help="longest time for one file")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    run = describe_run(count=options.count, seconds=options.seconds, seed=options.seed)
    print_run(run)
    wrong: list[dict[str, Any]] = []
    patterns: dict[str, dict[str, Any]] = defaultdict(lambda: {"count": 0, "kinds": Counter(), "example": ""})
    totals: Counter[str] = Counter()
    slowest = (0.0, "")
    with tempfile.TemporaryDirectory() as folder:
        for number, item in enumerate(damaged_files(options.count, seed=options.seed)):
            path = Path(folder) / f"{number:05d}" / item.name
            path.parent.mkdir()
            path.write_bytes(item.content)
            outcome = read_all(path, options.seconds)
            slowest = max(slowest, (outcome.seconds, item.kind))
            totals["files"] += 1
            totals["damaged files"] += item.num_bad > 0
            totals["damaged inputs"] += item.num_bad
            totals["reasons"] += len(outcome.reasons)
            totals["good expected"] += max(item.num_good, 0)
            totals["good encoded"] += outcome.num_good if item.num_good >= 0 else 0
            totals["crashes"] += outcome.crash is not None
            problems = faults(item, outcome)
            totals["files as they should be"] += not problems
            if problems:
                wrong.append({"number": number, "kind": item.kind, "problems": problems})
            for reason in outcome.reasons:
                entry = patterns[pattern_of(reason)]
                entry["count"] += 1
                entry["kinds"][item.kind] += 1
                entry["example"] = entry["example"] or reason
        together = read_all(Path(folder), 60 * options.seconds)
    figures = {
        **totals,
        "kinds": len({kind for e in patterns.values() for kind in e["kinds"]}),
        "distinct reasons": len(patterns),
        "slowest file (s)": round(slowest[0], 2),
        "slowest kind": slowest[1],
        "folder: encoded": together.num_good,
        "folder: reasons": len(together.reasons),
        "folder: crash": together.crash,
        "folder: seconds": round(together.seconds, 1),
    }
    for name, value in figures.items():
        print(f"{name:26s}{value}")
    kinds: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for entry in wrong:
        kinds[entry["kind"]].append(entry)
    print(f"\n{len(wrong)} files not as they should be, of {len(kinds)} kinds")
    for kind, entries in sorted(kinds.items()):
        print(f"  {len(entries):4d}  {kind}: {'; '.join(entries[0]['problems'])[:600]}")
    print(f"\n{len(patterns)} distinct reasons")
    for entry in sorted(patterns.values(), key=lambda e: -e["count"]):
        print(f"  {entry['count']:4d}  {entry['example'][:300]}   <- {', '.join(list(entry['kinds'])[:3])}")
    listed = [{**e, "kinds": dict(e["kinds"])} for e in patterns.values()]
    write_json(options.out, {"run": run, "figures": figures, "wrong": wrong, "reasons": listed})


if __name__ == "__main__":
    main()
