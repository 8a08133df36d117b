"""``nucleate validate``: every check of any crystal with its number, one line each, and repair inside the symmetry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from nucleate.cli.errors import EXIT_FAILED, error_console, sentence
from nucleate.cli.symprec import Symprec
from nucleate.errors import NucleateError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nucleate.evaluation.candidate import Candidate


def validate(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE",
            help="Structure files (CIF, POSCAR, extxyz), folders, archives, tables, stores or folders of "
            "`nucleate generate`.",
        ),
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object per crystal and line, for machines.")
    ] = False,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Push atoms apart and the density into bounds by the least displacement, inside the crystal's "
            "own space group; needs --out.",
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FOLDER", help="New folder for the CIF files of repaired crystals."),
    ] = None,
    symprec: Symprec = 0.01,
    max_atoms: Annotated[int, typer.Option(min=1, help="Refuse cells with more atoms than this.")] = 1000,
) -> None:
    """Check whether structures can be crystals.

    One line per crystal: distances (by element pair, own images included), density, volume against what the
    composition lets expect, shape of the cell, charge balance and the SMACT rule, coordination, angles, bond valences,
    bonds against those of real crystals, and the space groups found at several tolerances. A crystal **fails** on
    CDVAE's rule (0.5 Å, 0.1 Å³), a distance below that of real ones, density, volume, cell shape or charge balance;
    the SMACT rule, rare bonds and symmetry are told but do not fail it: a tenth of all known compounds break the
    SMACT rule. The exit code is 1 if one fails or cannot be read.

    **Examples:**

    - `nucleate validate NaCl.cif`

    - `nucleate validate generated/ --json > checks.jsonl`

    - `nucleate validate generated/*.cif --repair --out repaired/`
    """
    if repair != (out is not None):
        raise typer.BadParameter("--repair and --out FOLDER go together")
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise typer.BadParameter(f"{out} exists and is not an empty folder; name a new one")
    # The libraries behind these take a second to load; the help text needs none of them.
    from nucleate.data.file_names import safe_stem  # noqa: PLC0415
    from nucleate.evaluation.verdict import Verdict, judge, repaired  # noqa: PLC0415

    output, errors = Console(highlight=False, soft_wrap=True), error_console()
    num_crystals = num_failed = num_repaired = 0

    def show(verdict: Verdict) -> None:
        if as_json:
            typer.echo(json.dumps(verdict.values(), allow_nan=False))
        else:
            output.print(
                Text("ok    " if verdict.ok else "FAIL  ", style="green" if verdict.ok else "red"), end=""
            )
            output.print(Text(verdict.line()))

    for candidate in _candidates(files, symprec, max_atoms):
        num_crystals += 1
        verdict = judge(candidate)
        if out is not None:
            verdict = repaired(verdict)
            if verdict.repair is not None and verdict.repair.outcome == "repaired":
                num_repaired += 1
                out.mkdir(parents=True, exist_ok=True)
                name = f"{safe_stem(f'{num_crystals:05d}-{candidate.id}')}.cif"
                (out / name).write_text(verdict.repair.crystal.to_cif(candidate.id), encoding="utf-8")
        num_failed += not verdict.ok
        show(verdict)
    if out is not None:
        place = f" in {out}" if num_repaired else ""
        errors.print(f"{num_repaired} of {num_crystals} crystals repaired{place}.")
    if num_failed:
        errors.print(f"{num_failed} of {num_crystals} crystals fail.")
        raise typer.Exit(EXIT_FAILED)


def _candidates(files: list[str], symprec: float, max_atoms: int) -> Iterator[Candidate]:
    """Everything the named files hold; a file that cannot be opened is one candidate with its problem."""
    from nucleate.evaluation.candidate import Candidate  # noqa: PLC0415
    from nucleate.evaluation.reading import read_candidates  # noqa: PLC0415  (loads the readers)

    row = 0
    for file in files:
        try:
            for candidate in read_candidates(file, symprec=symprec, max_atoms=max_atoms):
                yield candidate
                row += 1
        except (NucleateError, OSError) as error:
            yield Candidate(row, file, file, None, None, sentence(error))
            row += 1
