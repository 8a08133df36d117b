"""``nucleate evaluate``: how good crystals are, whoever made them, against a reference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from nucleate.cli.errors import EXIT_FAILED, error_console
from nucleate.cli.progress_bars import stage_bars
from nucleate.cli.property_option import EXAMPLE, parse_property

if TYPE_CHECKING:
    from nucleate.evaluation.report import Report

FAMILY_NAMES = "validity, symmetry, distribution, novelty, stability, csp, condition"


def evaluate(
    crystals: Annotated[
        list[str],
        typer.Argument(
            metavar="CRYSTALS...",
            help="A folder of CIF or POSCAR files, an archive, a table (CSV, Parquet), extxyz, an ASE database, a "
            "store, or a folder of `nucleate generate`; two of them with --compare.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder of the report.")],
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference",
            "-r",
            metavar="STORE",
            help="Crystals to compare with: a store of `nucleate data build`.",
        ),
    ] = None,
    compare: Annotated[
        bool,
        typer.Option("--compare", help="Compare two sets under the same protocol: difference, interval, p."),
    ] = False,
    metrics: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help=f"Families, joined by commas: {FAMILY_NAMES}. All by default."),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(min=1, metavar="K", help="Samples per test structure in crystal structure prediction."),
    ] = None,
    targets: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Ids of the test structures that predictions were asked for, one per line; `held-out` for all "
            "held-out records of the reference. Those of which no crystal came then count as failures.",
        ),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Another threshold or tolerance, such as `stol=0.5`."),
    ] = None,
    predicted: Annotated[
        list[str] | None,
        typer.Option(
            "--property",
            metavar="NAME=MODULE:FUNCTION",
            help="A property that was asked for and the function (list of crystals to list of numbers) that predicts "
            f"it: `{EXAMPLE}`. Also `target`, `tolerance`, `uncertainty`.",
        ),
    ] = None,
    generation_seconds: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            metavar="SECONDS",
            help="Time the crystals took to make, for sample efficiency against compute; a folder of `nucleate "
            "generate` states it.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything random: bootstrap, permutation, samples.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes on this machine.")] = 1,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="URL", help="A running Dask scheduler (`tcp://host:8786`) to use instead."),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for what is kept of references.")
    ] = None,
    max_atoms: Annotated[int, typer.Option(min=1, help="Cells with more atoms count as unreadable.")] = 1000,
) -> None:
    """Say how good crystals are: one row per crystal, then averages with intervals and protocols.

    The score of a held-out sample of the reference stands beside each number: it is what real crystals reach. The
    folder then holds `crystals.parquet`, `crystals.csv`, `summary.json` and `plots/`. Crystals that cannot be read
    stay in the table with the reason and count against the generator. An evaluation that was stopped goes on when
    the command is repeated.

    **Examples:**

    - `nucleate evaluate samples/ --reference store --out report`

    - `nucleate evaluate samples.csv -r store -o report --metrics validity,symmetry,novelty --workers 4`

    - `nucleate evaluate ours/ theirs.zip --compare -r store -o comparison`
    """
    from nucleate.cli.report_view import print_comparison, print_report  # noqa: PLC0415
    from nucleate.errors import ConfigError  # noqa: PLC0415  (the help text needs none of this)
    from nucleate.evaluation.run import evaluate as evaluate_crystals  # noqa: PLC0415
    from nucleate.evaluation.run import evaluate_two  # noqa: PLC0415
    from nucleate.evaluation.settings import Settings  # noqa: PLC0415

    if compare != (len(crystals) == 2) or len(crystals) > 2:
        raise ConfigError(
            f"One set of crystals is evaluated, two are compared with --compare; {len(crystals)} were named"
            f"{' with --compare' if compare else ''}"
        )
    if compare and generation_seconds is not None:
        raise ConfigError(
            "--generation-seconds is the time of one set: evaluate each alone to see what it brings per second"
        )
    names = None if metrics is None else [name.strip() for name in metrics.split(",") if name.strip()]
    options: dict[str, Any] = {
        "metrics": names,
        "settings": Settings().changed(setting or []),
        "samples": samples,
        "targets": targets,
        "seed": seed,
        "workers": workers,
        "scheduler": scheduler,
        "cache": cache,
        "max_atoms": max_atoms,
        "properties": [parse_property(text) for text in predicted or []],
    }
    output = Console(highlight=False)
    with stage_bars("evaluating") as tell:
        if compare:
            comparison = evaluate_two(
                crystals[0], crystals[1], reference, out=out, on_progress=tell, **options
            )
            reports = [comparison.first, comparison.second]
        else:
            options["generation_seconds"] = generation_seconds
            reports = [evaluate_crystals(crystals[0], reference, out=out, on_progress=tell, **options)]
    if compare:
        print_comparison(output, comparison)
    else:
        print_report(output, reports[0])
    _print_remarks(output, reports)
    output.print(f"Report: {escape(str(out))}", soft_wrap=True)
    empty = [report for report in reports if not any(report.table.column("is_encoded").to_pylist())]
    for report in empty:
        reason = next(filter(None, report.table.column("problem").to_pylist()), "")
        error_console().print(
            f"[red]None of the {report.table.num_rows:,} inputs of "
            f"{escape(str(report.about['crystals']['source']))} is a crystal; the first: {escape(reason)}[/red]"
        )
    missing = _not_measured(reports, names)
    if missing:
        error_console().print(f"[red]Asked for but not measured: {escape('; '.join(missing))}[/red]")
        raise typer.Exit(EXIT_FAILED)
    if empty:
        raise typer.Exit(EXIT_FAILED)


def _not_measured(reports: list[Report], names: list[str] | None) -> list[str]:
    """Families that were asked for and gave no number, with the reason.

    Without ``--metrics`` everything is tried, and what an extra, a reference or a column is missing for is only
    said, unless nothing at all was measured.
    """
    missing: dict[str, str] = {}
    for report in reports:
        for name in names or report.about["families"]:
            found = [report.metrics[key] for key in report.families.get(name, ())]
            if all(metric.value is None for metric in found):
                why = report.problems.get(name) or next((m.note for m in found if m.note), "")
                missing.setdefault(name, f"{name} ({why.rstrip('.')})" if why else name)
    nothing = any(all(m.value is None for m in report.metrics.values()) for report in reports)
    return list(missing.values()) if names is not None or nothing else []


def _print_remarks(output: Console, reports: list[Report]) -> None:
    held_out = reports[0].about["reference"]
    if held_out is not None:
        output.print(
            f"Reference: {held_out['num_scored']:,} held-out crystals of {escape(held_out['held_out'])} "
            f"({escape(held_out['store'])}) under the same functions, unless the protocol says otherwise",
            soft_wrap=True,
        )
    several = len(reports) > 1
    said: dict[str, list[str]] = {}
    for report, letter in zip(reports, "AB"):
        for warning in report.warnings:
            said.setdefault(warning, []).append(letter)
    for warning, letters in said.items():
        whose = f"{' and '.join(letters)}: " if several else ""
        output.print(f"[yellow]{whose}{escape(warning)}[/yellow]", soft_wrap=True)
