"""Runs one program and ends it, with all it started, as soon as whoever asked for it is gone.

``python -I program_guard.py DESCRIPTOR CPU_SECONDS PROGRAM ARGUMENT ...``, leader of a process group of its own. The
descriptor is the reading end of a pipe whose other end only the asking process holds. The system closes that end
however the process ends, SIGKILL and out-of-memory included, so that its end cannot be missed on any POSIX system.

Only the standard library is imported: the guard starts in a few hundredths of a second.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

GRACE_SECONDS = 2.0
"""Between SIGTERM, at which mpirun ends its processes (they are in groups of their own), and SIGKILL."""

NOT_STARTED = 127


def main(descriptor: int, seconds: int, command: list[str]) -> int:
    """The code of the program; where a signal ended it, this process ends by the same one."""
    signal.signal(signal.SIGTERM, lambda *_: None)  # its own signal to the group; the program has the default
    _limit_processor_time(seconds)
    try:
        program = subprocess.Popen(command)
    except OSError as error:
        print(f"did not start ({error})", file=sys.stderr)
        return NOT_STARTED
    threading.Thread(target=_end_with, args=(descriptor,), daemon=True).start()
    code = program.wait()
    if code < 0:
        with contextlib.suppress(OSError, ValueError):  # SIGKILL has no handler to take away
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def _end_with(descriptor: int) -> None:
    """End the whole group when the pipe's other end is closed."""
    os.read(descriptor, 1)
    os.kill(0, signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.kill(0, signal.SIGKILL)


def _limit_processor_time(seconds: int) -> None:
    """Where the guard itself is killed together with the asking process, the program still ends (inherited)."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource  # noqa: PLC0415  not on every system

        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        limit = seconds if hard == resource.RLIM_INFINITY else min(seconds, hard)
        resource.setrlimit(resource.RLIMIT_CPU, (limit, hard if hard != resource.RLIM_INFINITY else limit))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
