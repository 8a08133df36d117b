"""Running a DFT program: arguments as a list, its own folder, a time limit that ends all its processes."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from nucleate.errors import DFTError
from nucleate.screening import program_guard
from nucleate.screening.potentials import sign_of_life

_TAIL = 2000


def find_program(name: str) -> str:
    """Absolute path of a program.

    Args:
        name: a name that is looked for on PATH, or a path.

    Raises:
        DFTError: there is no such program.
    """
    found = shutil.which(name)
    if found is None:
        raise DFTError(
            f"the program {name} is not on PATH; install it (Debian: quantum-espresso for pw.x, gpaw and gpaw-data for "
            "GPAW) or name its path"
        )
    return str(Path(found).resolve()) if os.sep in name else found


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Nothing; the files are in the folder, which is made.

    Raises:
        DFTError: a name leaves the folder.
    """
    for name, content in files.items():
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts or not parts.parts:
            raise DFTError(f"{name!r} is no name of a file inside {folder}")
        path = folder.joinpath(*parts.parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def run_program(
    arguments: Sequence[str], folder: Path, *, output: str, timeout: float, threads: int = 1
) -> None:
    """Nothing; the program has ended well and its output is in the folder.

    No shell is involved, standard input is empty, the working directory is the folder, and the program gets PATH, HOME,
    LANG and the like of the environment only. It runs under a guard (``program_guard``) that ends its whole process
    group when this process ends in whatever way, killed included; at the time limit, or when this process is
    interrupted, the group is ended from here. While it runs, the watcher of the funnel is told every few seconds that
    this is no hang.

    Args:
        arguments: program and arguments, each as it is.
        folder: where it runs.
        output: file name for standard output; standard error goes to the same name with ``.err``.
        timeout: seconds.
        threads: OpenMP threads.

    Raises:
        DFTError: it did not start, ended with another code than 0, or did not end in time; with the tail of its output.
    """
    environment = {key: os.environ[key] for key in _PASSED if key in os.environ}
    environment["OMP_NUM_THREADS"] = str(threads)
    out, err = folder / output, folder / f"{output}.err"
    limit = math.ceil(timeout * threads) + 1
    ours, guards = os.pipe()[::-1]
    command = [sys.executable, "-I", program_guard.__file__, str(guards), str(limit), *arguments]
    try:
        with out.open("wb") as standard, err.open("wb") as errors:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=standard,
                stderr=errors,
                pass_fds=(guards,),
                start_new_session=True,
            )
            try:
                code = _wait(process, timeout)
            finally:
                with contextlib.suppress(ProcessLookupError, PermissionError):  # also what it left behind
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    finally:
        os.close(guards)
        os.close(ours)
    if code is None:
        raise DFTError(
            f"{Path(arguments[0]).name} did not end within {timeout:g} s; allow more time, fewer k points "
            f"or a lower cut-off: {_tail(out)}"
        )
    if code == program_guard.NOT_STARTED and _tail(err).startswith("did not start"):
        raise DFTError(f"{arguments[0]} {_tail(err)}")
    if code != 0:
        raise DFTError(f"{Path(arguments[0]).name} ended with code {code}: {_tail(err) or _tail(out)}")


def _wait(process: subprocess.Popen[bytes], timeout: float) -> int | None:
    """The code the program ended with; None where it has not ended in time. The watcher is told that this waits."""
    end = time.monotonic() + timeout
    while True:
        left = end - time.monotonic()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(timeout=max(0.0, min(left, _HEARTBEAT)))
        if left <= 0:
            return None
        sign_of_life()


_HEARTBEAT = 5.0
"""Seconds between signs of life while a program runs."""

_PASSED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "GPAW_SETUP_PATH")


def _tail(path: Path) -> str:
    """The last lines of a file on one line."""
    with contextlib.suppress(OSError):
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL))
            lines = file.read().decode("utf-8", "replace").split("\n")
        return " | ".join(line.strip() for line in lines if line.strip())[-600:]
    return ""
