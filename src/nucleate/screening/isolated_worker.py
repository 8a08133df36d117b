"""The program of an isolated process: takes steps and crystals from a pipe, sends verdicts and signs of life back.

Started by ``screening.isolation`` as ``python -m nucleate.screening.isolated_worker DESCRIPTOR``.
"""

from __future__ import annotations

import errno
import faulthandler
import os
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

from nucleate.errors import CacheError, ConfigError, PotentialError, StoreError
from nucleate.screening.potentials import on_sign_of_life
from nucleate.screening.step import BatchStep, Step, StepItem, StepResult, lighter

BEAT_SECONDS = 0.5
"""Signs of life are not sent more often."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def serve(connection: Connection) -> None:
    """Answer requests until the pipe closes.

    Requests are ``(kind, limit, ...)`` with the seconds after which this process ends itself, in case that nobody is
    left to kill it: ``("prepare", limit, step)``, ``("one", limit, step, item)``, ``("many", limit, step, items)``,
    ``("call", limit, function, arguments)``.
    """
    heart = _Heart(connection)
    on_sign_of_life(heart.beat)
    while True:
        try:
            kind, limit, *content = connection.recv()
        except EOFError:
            return
        heart.limit = limit
        heart.wind()
        try:
            _answer(connection, kind, content)
        except Exception as error:  # the other side decides what a failure means for whom
            connection.send(("fatal" if _is_fatal(error) else "raised", error_text(error), _sendable(error)))
        faulthandler.cancel_dump_traceback_later()


def _answer(connection: Connection, kind: str, content: list[Any]) -> None:
    if kind == "prepare":
        step: Step = content[0]
        connection.send(("done", step.digest()))
    elif kind == "one":
        step, item = content
        connection.send(("results", [(0, lighter(run_one(step, item), item))]))
    elif kind == "many":
        _send_many(connection, *content)
        connection.send(("done", None))
    else:
        function: Callable[..., Any] = content[0]
        connection.send(("done", function(*content[1])))


def _send_many(connection: Connection, step: BatchStep, items: Sequence[StepItem]) -> None:
    """Send verdicts as they are found; those of a quick step are collected, since a message costs more than they do."""
    wait = BEAT_SECONDS if getattr(step, "is_quick", False) else 0.0
    found: list[tuple[int, StepResult]] = []
    last = time.monotonic()
    try:
        for place, result in step.run_many(items):
            found.append((place, lighter(checked(step, result), items[place])))
            if time.monotonic() - last >= wait:
                connection.send(("results", found))
                found, last = [], time.monotonic()
    finally:
        if found:
            connection.send(("results", found))


def run_one(step: Step, item: StepItem) -> StepResult:
    """The verdict on one crystal; an exception of the step is its reason, unless it concerns everybody."""
    try:
        return checked(step, step.run(item.candidate_id, item.crystal, item.properties))
    except Exception as error:  # a foreign calculator may raise anything
        if _is_fatal(error):
            raise
        return StepResult(item.crystal, "failed", reason=error_text(error))


def checked(step: Step, result: StepResult) -> StepResult:
    """The result, when its columns are those the step declares.

    Raises:
        ValueError: it has others.
    """
    strange = set(result.columns) - {column.name for column in step.columns}
    if strange:
        raise ValueError(
            f"the step {step.name} gave columns it does not declare: {', '.join(sorted(strange))}"
        )
    return result


def error_text(error: BaseException) -> str:
    """What went wrong on one line, with the kind of error."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _is_fatal(error: Exception) -> bool:
    """Whether an error concerns the whole run and not one crystal: no disk, no potential, no reference."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    return isinstance(error, CacheError | ConfigError | PotentialError | StoreError)


def _sendable(error: Exception) -> Exception:
    """The error if the other side knows its type, else its text."""
    if type(error).__module__ in ("nucleate.errors", "builtins"):
        return error
    return RuntimeError(error_text(error))


class _Heart:
    """Sends signs of life, and ends this process when none has been due for too long.

    The clock is faulthandler's: it runs in a thread of C and does not need the interpreter, so that a library that
    never gives it back cannot outlive the run as an orphan.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection, self._last = connection, 0.0
        self._nowhere = open(os.devnull, "w")  # noqa: SIM115  open for the life of the process
        self.limit = 0.0

    def beat(self) -> None:
        """Tell that work goes on."""
        now = time.monotonic()
        if now - self._last >= BEAT_SECONDS:
            self._last = now
            self._connection.send(("alive",))
            self.wind()

    def wind(self) -> None:
        """Begin the time anew."""
        faulthandler.dump_traceback_later(self.limit, exit=True, file=self._nowhere)


def main() -> None:
    """Serve on the pipe whose descriptor is the first argument."""
    connection = Connection(int(sys.argv[1]))
    try:
        serve(connection)
    except (BrokenPipeError, ConnectionResetError):  # the run has ended
        os._exit(1)


if __name__ == "__main__":
    main()
