"""Blocks made side by side are those made one after the other, and no process ends unheard."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from nucleate.errors import ConditionError, NucleateError, WyckoffError
from nucleate.generation.block_workers import check_workers, made_blocks
from nucleate.generation.condition import Condition
from nucleate.generation.generator import GenerationProgress, Generator

BLOCKS = [[0, 1, 2], [3, 4], [5]]


def _squares(indices: list[int], report: Callable[[float], None]) -> tuple[int, list[int]]:
    report(0.5)
    return os.getpid(), [i * i for i in indices]


def _refuses(indices: list[int], report: Callable[[float], None]) -> None:
    if 3 in indices:
        raise WyckoffError("there is no such position")


def _fails(indices: list[int], report: Callable[[float], None]) -> float:
    return 1 / (indices[0] - 3)


def _is_killed(folder: Path, indices: list[int], report: Callable[[float], None]) -> None:
    (folder / str(os.getpid())).touch()
    if 3 in indices:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_every_block_is_made_once_and_progress_only_grows(workers: int) -> None:
    shares: list[float] = []
    made = list(made_blocks(_squares, BLOCKS, workers=workers, report=shares.append))
    assert sorted(block for block, _ in made) == BLOCKS
    assert all(squares == [i * i for i in block] for block, (_, squares) in made)
    processes = {process for _, (process, _) in made}
    assert len(processes) <= workers
    assert (os.getpid() in processes) == (workers == 1)
    assert shares == sorted(shares)
    assert shares[-1] == 6
    assert any(share != int(share) for share in shares), "blocks under way do not count"


def test_what_a_process_raises_is_raised_here() -> None:
    with pytest.raises(WyckoffError, match="no such position"):
        list(made_blocks(_refuses, BLOCKS, workers=2, report=lambda _: None))
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        list(made_blocks(_fails, BLOCKS, workers=2, report=lambda _: None))


def test_a_killed_process_is_told_and_takes_the_others_along(tmp_path: Path) -> None:
    with pytest.raises(NucleateError, match=r"exit code -9.*fewer --workers"):
        list(made_blocks(partial(_is_killed, tmp_path), BLOCKS, workers=2, report=lambda _: None))
    for process in tmp_path.iterdir():
        with pytest.raises(ProcessLookupError):
            os.kill(int(process.name), 0)


def test_ctrl_c_while_processes_start_is_answered_here_alone(tmp_path: Path) -> None:
    """As a terminal does it: the signal goes to the whole group, and only the process that was called says so."""
    code = (
        "import os, signal, threading\n"
        "from nucleate.generation.block_workers import made_blocks\n"
        "from test_block_workers import _squares, BLOCKS\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by whoever runs in the background\n"
        "    threading.Timer(0.3, os.killpg, (0, signal.SIGINT)).start()\n"
        "    try:\n"
        "        list(made_blocks(_squares, BLOCKS, workers=2, report=lambda _: None))\n"
        "    except KeyboardInterrupt:\n"
        "        print('stopped')\n"
    )
    script = tmp_path / "asks.py"
    script.write_text(code)
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    ended = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": path},
        timeout=120,
        check=False,
    )
    assert (ended.stdout, ended.stderr, ended.returncode) == ("stopped\n", "", 0)


def test_two_workers_make_the_crystals_of_one(generator: Generator, tmp_path: Path) -> None:
    condition = Condition(elements=("O",), num_atoms=(1, 8))
    seen: list[GenerationProgress] = []
    settings = {"n": 6, "seed": 4, "batch_size": 2, "steps": 2}
    threads = torch.get_num_threads()
    alone = generator.generate(condition, **settings)
    assert torch.get_num_threads() == threads
    both = generator.generate(condition, **settings, workers=2, out=tmp_path / "out", on_progress=seen.append)
    assert both.rows == alone.rows
    for one, other in zip(both, alone):
        for field in ("wyckoff_indices", "atomic_numbers", "lattice_params", "free_coords"):
            np.testing.assert_array_equal(getattr(one, field), getattr(other, field))
    assert [p.fraction for p in seen] == sorted(p.fraction for p in seen)
    assert (seen[-1].done, seen[-1].fraction) == (6, 1.0)
    assert len(list((tmp_path / "out" / "crystals").glob("*.cif"))) == 6


def test_workers_are_for_processors() -> None:
    check_workers(3, torch.device("cpu"))
    with pytest.raises(ConditionError, match="at least 1"):
        check_workers(0, torch.device("cpu"))
    with pytest.raises(ConditionError, match="batch-size"):
        check_workers(2, torch.device("cuda", 0))
