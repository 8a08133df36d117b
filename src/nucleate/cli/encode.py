"""``nucleate encode``: the exact asymmetric unit of any structure files, for people or for machines."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from nucleate.cli.errors import EXIT_FAILED, error_console, sentence
from nucleate.cli.structure_files import read_structures
from nucleate.cli.symprec import Symprec
from nucleate.errors import NucleateError


def encode(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE",
            help="Structure files (CIF, POSCAR, extxyz), folders, archives or tables: all that "
            "`nucleate data build` reads.",
        ),
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object per structure and line, for machines.")
    ] = False,
    symprec: Symprec = 0.01,
    max_atoms: Annotated[int, typer.Option(min=1, help="Refuse cells with more atoms than this.")] = 1000,
    subgroup: Annotated[
        int | None,
        typer.Option(
            min=1, max=230, help="Describe the crystal in this subgroup of its space group (1 is P1)."
        ),
    ] = None,
) -> None:
    """Show structures as their exact asymmetric units.

    For each: space group, free lattice parameters, orbits with their free coordinates, how far the ideal
    crystal lies from the input (displacement and strain), prototype key, and the groups found at other
    tolerances. A structure that cannot be encoded is named with its reason on standard error, the others are
    shown, and the exit code is then 1.

    **Examples:**

    - `nucleate encode NaCl.cif`

    - `nucleate encode POSCAR relaxed.extxyz downloads/ set.zip --symprec 0.05`

    - `nucleate encode crystals/*.cif --json > crystals.jsonl`
    """
    # The libraries behind these take a second to load; the help text needs none of them.
    from nucleate.cli.crystal_view import encoding_panel, encoding_values  # noqa: PLC0415
    from nucleate.crystal import encode as encode_unit_cell  # noqa: PLC0415
    from nucleate.crystal import pseudo_symmetry  # noqa: PLC0415
    from nucleate.data.record import Rejection  # noqa: PLC0415

    output, errors = Console(), error_console()
    num_shown = num_refused = 0

    def refuse(file: str, row: int | str | None, reason: str) -> None:
        nonlocal num_refused
        num_refused += 1
        place = f"{file or repr(file)}" if row is None else f"{file}, row {row}"
        errors.print(f"[red]{escape(place)}:[/red] {escape(reason)}")

    for item in read_structures(files, max_atoms):
        if isinstance(item, Rejection):
            refuse(item.file, item.row, item.reason)
            continue
        try:
            encoded = encode_unit_cell(
                item.structure, symprec=symprec, max_atoms=max_atoms, subgroup=subgroup
            )
            groups = pseudo_symmetry(item.structure)
        except NucleateError as error:
            refuse(item.provenance.file, item.provenance.row, sentence(error))
            continue
        num_shown += 1
        if as_json:
            typer.echo(json.dumps(encoding_values(item, encoded, groups), allow_nan=False))
        else:
            output.print(encoding_panel(item, encoded, groups))
    if num_refused:
        errors.print(
            f"{num_shown} of {num_shown + num_refused} structures encoded; the others are named above."
        )
        raise typer.Exit(EXIT_FAILED)
