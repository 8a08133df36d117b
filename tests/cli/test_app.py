"""The frame of the command line: version, help, and how errors, Ctrl-C and bugs end."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

import nucleate
from nucleate.cli.app import app
from nucleate.cli.errors import CommandGroup
from nucleate.errors import NucleateError, SourceError

RUNNER = CliRunner()


def _app_raising(error: BaseException) -> typer.Typer:
    """A program of our command group with one command, nested in a sub-group, that raises ``error``."""
    outer, inner = typer.Typer(cls=CommandGroup, pretty_exceptions_enable=False), typer.Typer()
    outer.add_typer(inner, name="group")

    @inner.command()
    def fail() -> None:
        raise error

    @inner.command()
    def work() -> None:
        typer.echo("done")

    return outer


def test_version() -> None:
    result = RUNNER.invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"nucleate {nucleate.__version__}\n")


def test_no_command_shows_the_help() -> None:
    result = RUNNER.invoke(app, [])
    assert "Usage" in result.output
    assert "encode" in result.output


def test_unknown_command_is_a_usage_error() -> None:
    result = RUNNER.invoke(app, ["enocde"])
    assert result.exit_code == 2
    assert "enocde" in result.output


@pytest.mark.parametrize("start", [[sys.executable, "-m", "nucleate"], ["nucleate"]])
def test_program_starts(start: list[str]) -> None:
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    result = subprocess.run(
        [*start, "--version"], capture_output=True, text=True, check=True, env={**os.environ, "PATH": path}
    )
    assert result.stdout == f"nucleate {nucleate.__version__}\n"


def test_expected_error_is_one_sentence() -> None:
    result = RUNNER.invoke(_app_raising(SourceError("No file x.cif\n  in this folder.")), ["group", "fail"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: No file x.cif in this folder.\n"


def test_file_system_error_names_the_file() -> None:
    result = RUNNER.invoke(
        _app_raising(FileNotFoundError(2, "No such file or directory", "x.cif")), ["group", "fail"]
    )
    assert (result.exit_code, result.stderr) == (1, "Error: x.cif: No such file or directory.\n")


def test_markup_in_a_message_is_shown_as_it_is() -> None:
    result = RUNNER.invoke(_app_raising(NucleateError("Site [bold] of file [/red].")), ["group", "fail"])
    assert result.stderr == "Error: Site [bold] of file [/red].\n"


@pytest.mark.parametrize(
    ("interrupt", "words"),
    [
        (
            KeyboardInterrupt("12 records are kept in out; the same command goes on."),
            "12 records are kept in out",
        ),
        (KeyboardInterrupt(), "nothing is left half-written"),
    ],
)
def test_interrupt_says_what_is_kept(interrupt: KeyboardInterrupt, words: str) -> None:
    result = RUNNER.invoke(_app_raising(interrupt), ["group", "fail"])
    assert result.exit_code == 130
    assert words in result.stderr
    assert "Traceback" not in result.output


def test_bug_is_named_as_one_without_a_traceback() -> None:
    result = RUNNER.invoke(_app_raising(ZeroDivisionError("division by zero")), ["group", "fail"])
    assert result.exit_code == 70
    assert "Bug in nucleate: ZeroDivisionError: division by zero" in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize("error", [SourceError("No file."), ZeroDivisionError("division by zero")])
def test_debugging_shows_the_traceback(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUCLEATE_DEBUG", "1")
    result = RUNNER.invoke(_app_raising(error), ["group", "fail"])
    assert result.exception is error


def test_a_command_that_works_is_left_alone() -> None:
    result = RUNNER.invoke(_app_raising(ZeroDivisionError()), ["group", "work"])
    assert (result.exit_code, result.stdout, result.stderr) == (0, "done\n", "")
