"""Many small jobs in one or several processes, each result kept in a file as soon as it is there."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

import nucleate
from nucleate.generation.allocator import keep_freed_memory
from nucleate.generation.generator import Generator

_GENERATOR: list[Generator] = []


def generator() -> Generator:
    """The generator of this process."""
    return _GENERATOR[0]


def settle_process() -> None:
    """One thread, and freed memory kept: how a process of a benchmark samples. For processes of one's own."""
    torch.set_num_threads(1)
    keep_freed_memory()


def _start(weights: Path | None) -> None:
    settle_process()
    warnings.filterwarnings("ignore")
    _GENERATOR[:] = [nucleate.load(weights)]


def results(
    function: Callable[[Any], dict[str, Any]],
    jobs: Sequence[tuple[int, Any]],
    path: Path,
    *,
    weights: Path | None,
    workers: int = 1,
    report_every: int = 25,
) -> Iterator[dict[str, Any]]:
    """``{"number": i, **function(job)}`` of each (i, job), those kept in the file first, in no order.

    Each line of the file is one result; an unfinished last line (of a killed run) is made again.

    Args:
        function: of a job; a function of a module, since it runs in other processes; may call ``generator()``.
        jobs: number and job, which other processes can be sent.
        path: file of results; name it after everything that the results depend on.
        weights: of the generator of each process; the shipped ones unless given.
        workers: processes of one thread each.
        report_every: results between two lines of progress.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    kept: dict[int, dict[str, Any]] = {}
    lines = path.read_text().splitlines() if path.exists() else []
    for line in lines:
        try:
            result = json.loads(line)
        except ValueError:
            continue
        kept[result["number"]] = result
    wanted = {number for number, _ in jobs}
    yield from (result for number, result in kept.items() if number in wanted)
    rest = [(function, number, job) for number, job in jobs if number not in kept]
    if not rest:
        return
    began = time.monotonic()
    with (
        path.open("a") as stream,
        get_context("spawn").Pool(workers, initializer=_start, initargs=(weights,)) as pool,
    ):
        if lines:
            stream.write("\n")
        for done, result in enumerate(pool.imap_unordered(_run, rest), 1):
            stream.write(json.dumps(result) + "\n")
            stream.flush()
            if done % report_every == 0:
                print(f"{done} of {len(rest)}, {time.monotonic() - began:.0f} s", flush=True)
            yield result


def _run(work: tuple[Callable[[Any], dict[str, Any]], int, Any]) -> dict[str, Any]:
    function, number, job = work
    return {"number": number, **function(job)}
