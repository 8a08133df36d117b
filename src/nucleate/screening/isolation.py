"""Steps in a process of their own: one that raises, hangs or dies costs the crystal it was at, and nothing else."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import IO, Any

from nucleate.errors import ScreeningError
from nucleate.screening.step import Step, StepItem, StepResult, whole

PREPARE_SECONDS = 900.0
"""A potential or a reference that does not load in this time never will."""

TRIES = 2
"""A process that dies while it is at a crystal may have been killed from outside: the crystal gets a second one."""


class Silent(Exception):
    """The process gave no sign of life in time and was killed."""


class Died(Exception):
    """The process ended by itself, or was killed from outside."""


class IsolatedProcess:
    """A child process that runs steps, kept for the next crystals, replaced when it hangs or dies.

    Crystals go to it together where the step can do several; then it has to give a sign of life (a verdict, or a
    finished call of the potential) every ``timeout`` seconds. What is left when it raises, goes silent or dies is done
    one crystal after the other, each with ``timeout`` seconds in all, so that the one at fault is found.

    Args:
        timeout: seconds.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._child: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._log: IO[bytes] | None = None
        self._prepared: set[str] = set()

    def prepare(self, step: Step) -> str:
        """The digest of a step, with everything it needs loaded.

        Raises:
            NucleateError: the potential or the reference cannot be loaded.
            ScreeningError: the process died or hung while loading.
        """
        return self.call_prepared("prepare", step)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a function gives in the child process."""
        return self.call_prepared("call", function, arguments)

    def call_prepared(self, kind: str, *content: Any) -> Any:
        """The answer to a request that concerns no crystal in particular; made again where the process was killed."""
        trouble: Exception = Died("was not running")
        for _ in range(TRIES):
            try:
                return self._answer(kind, *content)
            except Died as error:
                trouble = error
            except Silent as error:
                trouble = error
                break
        raise ScreeningError(
            f"The process that loads the potential and the reference {trouble}: this concerns every crystal"
        ) from trouble

    def _answer(self, kind: str, *content: Any) -> Any:
        complete = False
        try:
            self._send(kind, PREPARE_SECONDS, *content)
            while True:
                answer, *rest = self._receive(time.monotonic() + PREPARE_SECONDS)
                complete = answer != "alive"
                if answer == "done":
                    return rest[0]
                if answer in ("fatal", "raised"):
                    raise rest[1]
        finally:
            if not complete:
                self.close()

    def run(self, step: Step, items: Sequence[StepItem]) -> Iterator[tuple[int, StepResult]]:
        """(place in ``items``, verdict) for every item, in the order in which they are found.

        Raises:
            NucleateError, OSError: what concerns the whole run, such as a full disk.
        """
        left = dict(enumerate(items))
        complete = False
        try:
            if len(items) > 1 and getattr(step, "batch_size", 1) > 1:
                for place, result in self._together(step, list(items)):
                    del left[place]
                    yield place, result
            for place, item in left.items():
                yield place, self._alone(step, item)
            complete = True
        finally:
            if not complete:  # what it still sends must not answer for the next crystals
                self.close()

    def _together(self, step: Step, items: list[StepItem]) -> Iterator[tuple[int, StepResult]]:
        try:
            self._load(step)
            self._send("many", self.timeout, step, items)
            while True:
                answer, *rest = self._receive(time.monotonic() + self.timeout)
                if answer == "results":
                    for place, result in rest[0]:
                        yield place, whole(result, items[place])
                elif answer == "fatal":
                    raise rest[1]
                elif answer in ("done", "raised"):
                    return
        except (Silent, Died):
            return

    def _alone(self, step: Step, item: StepItem) -> StepResult:
        trouble = ""
        for _ in range(TRIES):
            try:
                self._load(step)
                self._send("one", self.timeout, step, item)
                deadline = time.monotonic() + self.timeout
                while True:
                    answer, *rest = self._receive(deadline)
                    if answer == "results":
                        return whole(rest[0][0][1], item)
                    if answer == "fatal":
                        raise rest[1]
                    if answer == "raised":
                        return StepResult(item.crystal, "failed", reason=rest[0])
            except Silent:
                reason = f"not finished after {self.timeout:g} s, and stopped"
                return StepResult(item.crystal, "failed", reason=reason)
            except Died as error:
                trouble = str(error)
        return StepResult(item.crystal, "failed", reason=f"its process {trouble}, {TRIES} times")

    def _load(self, step: Step) -> None:
        """Have a new process load what the step needs, so that loading does not count as the crystal's time."""
        if self._child is None:
            self._start()
        if step.name not in self._prepared:
            self.prepare(step)
            self._prepared.add(step.name)

    def _send(self, kind: str, limit: float, *content: Any) -> None:
        if self._child is None:
            self._start()
        assert self._pipe is not None
        try:
            self._pipe.send((kind, 1.5 * limit + 60, *content))
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Died(self._end()) from error

    def _receive(self, deadline: float) -> tuple[Any, ...]:
        assert self._pipe is not None
        try:
            if not self._pipe.poll(max(0.0, deadline - time.monotonic())):
                self._end()
                raise Silent("gave no sign of life")
            return self._pipe.recv()
        except (EOFError, ConnectionResetError) as error:
            raise Died(self._end()) from error

    def _start(self) -> None:
        ours, theirs = Pipe()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  read when the child has died
        paths = [path for path in sys.path if path]
        with theirs:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "nucleate.screening.isolated_worker", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._log,
                # A group of its own: Ctrl-C in the terminal is for the run, which ends its children itself.
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONWARNINGS": "ignore"},
            )
        self._pipe = ours
        self._prepared.clear()

    def _end(self) -> str:
        """``_kill``, with a moment for a child that is dying to say how."""
        if self._child is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(0.2)
        return self._kill()

    def _kill(self) -> str:
        """Kill the child and everything it started; how it ended, in words."""
        child, pipe, log = self._child, self._pipe, self._log
        self._child = self._pipe = self._log = None
        if child is None or pipe is None or log is None:
            return "was not running"
        code = child.poll()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        pipe.close()
        with log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 2000))
            lines = log.read().decode("utf-8", "replace").strip().splitlines()
        last = f" ({lines[-1].strip()[:200]})" if lines else ""
        if code is None:
            return "was stopped"
        if code < 0:
            return f"was killed by signal {-code} ({signal.Signals(-code).name}){last}"
        return f"ended with code {code}{last}"

    def close(self) -> None:
        """End the child."""
        self._kill()
