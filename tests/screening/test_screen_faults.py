"""Killed drivers and full disks: every candidate is accounted for once, and what was finished is not done again."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from faulty_emt import DIARY, KILLS_AT, metals

FORMULAS = ("Cu", "Ag", "Au", "Ni", "Pd", "Pt", "Al", "Cu-Au", "Cu-Ag", "Ni-Al", "Pd-Cu", "Pt-Au")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for number, crystal in enumerate(metals(*FORMULAS)):
        (tmp_path / "in" / f"{number:02d}.cif").write_text(crystal.to_cif(str(number)))
    return tmp_path


def _run(
    folder: Path, name: str, *, before: Callable[[], None] | None = None, kills_at: int = -1
) -> tuple[int, str]:
    """Exit code and standard error of ``nucleate screen`` with a counting EMT."""
    command = [sys.executable, "-m", "nucleate", "screen", str(folder / "in"), "--out", str(folder / name)]
    command += ["--steps", "relax", "--potential", "faulty_emt:CountingEMT", "--set", "relax.check=false"]
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    environment = {
        **os.environ,
        DIARY: str(folder / f"{name}.diary"),
        KILLS_AT: str(kills_at),
        "PYTHONPATH": paths,
    }
    done = subprocess.run(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=before,
        check=False,
    )
    return done.returncode, done.stderr.decode().strip()


def _verdicts(folder: Path, name: str) -> int:
    work = folder / name / "work"
    files = [*work.glob("results/*.jsonl"), *work.glob("tasks/*/*.jsonl")]
    return sum(path.read_bytes().count(b"\n") for path in files)


def _table(folder: Path, name: str) -> list[dict[str, object]]:
    return pq.read_table(folder / name / "crystals.parquet").to_pylist()


def test_a_killed_driver_goes_on_and_a_full_disk_is_one_sentence(folder: Path) -> None:
    assert _run(folder, "whole") == (0, "")
    expected = _table(folder, "whole")
    evaluations = Counter((folder / "whole.diary").read_text().splitlines())
    assert len(expected) == len(FORMULAS)
    assert {row["status"] for row in expected} == {"passed"}

    code, _ = _run(folder, "killed", kills_at=sum(evaluations.values()) // 2)
    assert code == -signal.SIGKILL
    assert 2 < _verdicts(folder, "killed") < len(FORMULAS) - 2
    assert _run(folder, "killed") == (0, "")
    assert _table(folder, "killed") == expected
    twice = Counter((folder / "killed.diary").read_text().splitlines()) - evaluations
    assert len(twice) <= 1  # the crystal that was under way, and no other

    code, message = _run(
        folder, "full", before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2500, 2500))
    )
    assert code == 1
    assert "The disk of" in message
    assert "is full" in message
    assert "Traceback" not in message
    assert _run(folder, "full") == (0, "")
    assert _table(folder, "full") == expected
