"""How a command ends: what the user reads and the exit code, for expected errors, Ctrl-C and bugs."""

from __future__ import annotations

import errno
import os
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from nucleate.errors import NucleateError

EXIT_FAILED = 1
EXIT_BUG = 70
EXIT_INTERRUPTED = 130


def error_console() -> Console:
    """Console on standard error, so that standard output holds results only."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def debugging() -> bool:
    """Whether the user asked for tracebacks with ``NUCLEATE_DEBUG=1``."""
    return os.environ.get("NUCLEATE_DEBUG", "") not in ("", "0")


def sentence(error: BaseException) -> str:
    """What went wrong, on one line: the error's message, with the file's name where there is one."""
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror}."
    return " ".join(str(error).split()) or type(error).__name__


class CommandGroup(TyperGroup):
    """A group of commands in which no error reaches the user as a traceback.

    ======================================  ===================================================  =========
    a command raises                        standard error                                       exit code
    ======================================  ===================================================  =========
    ``NucleateError``, ``OSError``          its sentence                                         1
    ``KeyboardInterrupt("what is kept")``   ``Interrupted; what is kept``                        130
    anything else                           that it is a bug, and how to see where               70
    ======================================  ===================================================  =========

    With ``NUCLEATE_DEBUG=1`` in the environment the traceback is shown instead.
    """

    def invoke(self, ctx: Any) -> Any:
        """The command's own result; errors end the program as the table above says."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            kept = sentence(interrupt) if interrupt.args else "nothing is left half-written."
            _say(f"Interrupted; {kept}")
            raise typer.Exit(EXIT_INTERRUPTED) from interrupt
        except (NucleateError, OSError) as error:
            # A reader that closed the pipe (`nucleate encode ... | head`) has all it wanted: typer ends
            # quietly.
            if debugging() or (isinstance(error, OSError) and error.errno == errno.EPIPE):
                raise
            _say(f"Error: {sentence(error)}")
            raise typer.Exit(EXIT_FAILED) from error
        except Exception as error:
            if debugging() or _belongs_to_typer(error):
                raise
            _say(
                f"Bug in nucleate: {type(error).__name__}: {sentence(error)} "
                "Run the same command with NUCLEATE_DEBUG=1 to see where, and please report it."
            )
            raise typer.Exit(EXIT_BUG) from error


def _belongs_to_typer(error: Exception) -> bool:
    """Whether typer shows this error itself: a wrong option, a missing argument, or the normal end."""
    return type(error).__module__.split(".")[0] in ("typer", "click")


def _say(text: str) -> None:
    error_console().print(
        escape(text), style="bold red" if text.startswith(("Error", "Bug")) else "bold yellow"
    )
