"""The option ``--symprec`` as every command takes it."""

from __future__ import annotations

from typing import Annotated

import typer


def checked_symprec(symprec: float | None) -> float | None:
    """The tolerance, if it can be one; None where none was given."""
    if symprec is not None and not 0 < symprec < 10:
        raise typer.BadParameter(f"symprec is a distance between 0 and 10 Å, got {symprec:g}")
    return symprec


Symprec = Annotated[
    float,
    typer.Option(callback=checked_symprec, help="How far (Å) atoms may lie from their symmetric places."),
]
"""A tolerance in Å; one that cannot be is wrong usage (exit code 2)."""
