"""The command ``nucleate``: its options, and every command in its place.

Command modules import only typer, rich and the standard library at the top; what they work with is imported
when the command runs. So ``nucleate --help`` answers at once.
"""

from __future__ import annotations

from typing import Annotated

import typer

import nucleate
from nucleate.cli.data import data_app
from nucleate.cli.demo import demo
from nucleate.cli.encode import encode
from nucleate.cli.errors import CommandGroup
from nucleate.cli.evaluate import evaluate
from nucleate.cli.feasible import feasible
from nucleate.cli.generate import generate
from nucleate.cli.screen import screen
from nucleate.cli.train import train
from nucleate.cli.validate import validate

app = typer.Typer(
    name="nucleate",
    cls=CommandGroup,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"nucleate {nucleate.__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def nucleate_command(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and stop.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Encode crystals exactly: symmetry, composition and known physics are in the encoding.

    **Example:** `nucleate encode NaCl.cif`
    """


app.command("demo")(demo)
app.command("encode")(encode)
app.command("evaluate")(evaluate)
app.command("feasible")(feasible)
app.command("generate")(generate)
app.command("screen")(screen)
app.command("train")(train)
app.command("validate")(validate)
app.add_typer(data_app, name="data")


def main() -> None:
    """Run the command line and leave the program with its exit code."""
    app(prog_name="nucleate")
