"""Blocks of crystals, sampled one after the other here or side by side in processes with networks of their own."""

from __future__ import annotations

import pickle
import signal
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeAlias

import torch

from nucleate.errors import ConditionError, NucleateError
from nucleate.generation.allocator import keep_freed_memory

Make: TypeAlias = Callable[[list[int], Callable[[float], None]], Any]
"""(indices of the crystals of a block, what is told the share that is done) to what the block holds."""


def made_blocks(
    make: Make, blocks: Sequence[list[int]], *, workers: int, report: Callable[[float], None]
) -> Generator[tuple[list[int], Any], None, None]:
    """Each block with what was made of it, in the order in which they are done.

    Every process, this one too, makes its blocks in one thread: what a crystal becomes then does not depend on the
    block it is in, and the many small operations are done sooner (two threads take 1.6 times as long). Other processes
    have copies of ``make`` (it is pickled to them); they end with the iterator, with this process, and when they are
    done.

    Args:
        make: makes a block; its results are pickled back.
        blocks: indices of the crystals of each block.
        workers: processes; 1, or a single block, is made in this process.
        report: told how many crystals are made, parts of blocks that are under way counted by their share.

    Raises:
        NucleateError: whatever ``make`` raised, or a process was killed.
    """
    finished = 0
    if workers == 1 or len(blocks) < 2:
        for block in blocks:
            with one_thread():
                made = make(block, partial(_report_one, report, finished, len(block)))
            yield block, made
            finished += len(block)
            report(float(finished))
        return
    # Bytes, since pickled as they are tensors would be put into shared memory, which containers have little of.
    content = pickle.dumps(make)
    team: list[_Worker] = []
    waiting = iter(blocks)
    try:
        for _ in range(min(workers, len(blocks))):
            team.append(_Worker(content))
            team[-1].begin(next(waiting))
        while busy := [worker for worker in team if worker.block]:
            ready = wait([worker.connection for worker in busy])
            for worker in [worker for worker in busy if worker.connection in ready]:
                kind, content = worker.receive()
                if kind == "share":
                    worker.share = content
                else:
                    block, worker.block, worker.share = worker.block, [], 0.0
                    finished += len(block)
                    following = next(waiting, None)
                    if following is not None:
                        worker.begin(following)
                    yield block, content
                report(finished + sum(each.share * len(each.block) for each in team))
    finally:
        for worker in team:
            worker.stop()


def _report_one(report: Callable[[float], None], finished: int, size: int, share: float) -> None:
    report(finished + share * size)


@contextmanager
def one_thread() -> Iterator[None]:
    """torch computes in one thread meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Worker:
    """A process that makes blocks, and this side of the pipe to it."""

    def __init__(self, content: bytes) -> None:
        context = get_context("spawn")
        self.connection, far = context.Pipe()
        self.block: list[int] = []
        self.share = 0.0
        self.process: BaseProcess = context.Process(target=_work, args=(far, content), daemon=True)
        with _interrupts_wait():
            self.process.start()
        far.close()

    def begin(self, block: list[int]) -> None:
        self.block = block
        # A process that is dead already is found out about by whoever waits for its answer.
        with suppress(OSError):
            self.connection.send(block)

    def receive(self) -> tuple[str, Any]:
        try:
            kind, content = self.connection.recv()
        except (EOFError, OSError) as error:
            self.process.join(5)
            raise NucleateError(
                f"A process that samples was killed (exit code {self.process.exitcode}), most likely for want of "
                "memory: repeat the command with fewer --workers or a smaller --batch-size"
            ) from error
        if kind == "error":
            raise content
        return kind, content

    def stop(self) -> None:
        self.connection.close()
        self.process.terminate()
        self.process.join()


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """A process that starts meanwhile sees no Ctrl-C; a terminal sends it to every process, and this one answers."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # the first process would start it, which lets interrupts in again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(connection: Connection, content: bytes) -> None:
    """Life of a process: blocks in, shares and results out, until the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # also drops one that came while this process started
    torch.set_num_threads(1)
    keep_freed_memory()
    make: Make = pickle.loads(content)  # what the parent pickled
    while True:
        try:
            block = connection.recv()
            connection.send(("made", make(block, lambda share: connection.send(("share", share)))))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return
        except NucleateError as error:
            connection.send(("error", error))
        except Exception:
            connection.send(("error", RuntimeError(f"In a process that samples:\n{traceback.format_exc()}")))


def check_workers(workers: int, device: torch.device) -> None:
    """Raise where so many processes make no sense.

    Raises:
        ConditionError: fewer than one, or several on something else than processors.
    """
    if workers < 1:
        raise ConditionError(f"workers must be at least 1, got {workers}")
    if workers > 1 and device.type != "cpu":
        raise ConditionError(
            f"workers must be 1 on the device {device}, got {workers}: one process keeps an accelerator busy; "
            "a larger --batch-size uses more of it"
        )
