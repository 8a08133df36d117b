"""``nucleate evaluate``: how good crystals are, whoever made them, against a reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from nucleate.cli.errors import EXIT_FAILED, error_console
from nucleate.cli.progress_bars import count_bar

if TYPE_CHECKING:
    from rich.table import Table

    from nucleate.evaluation.compare import Comparison
    from nucleate.evaluation.metric import Metric
    from nucleate.evaluation.report import Report
    from nucleate.evaluation.scoring import Progress

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
    setting: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Another threshold or tolerance, such as `stol=0.5`."),
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
    from nucleate.errors import ConfigError  # noqa: PLC0415  (the help text needs none of this)
    from nucleate.evaluation.run import evaluate as evaluate_crystals  # noqa: PLC0415
    from nucleate.evaluation.run import evaluate_two  # noqa: PLC0415
    from nucleate.evaluation.settings import Settings  # noqa: PLC0415

    if compare != (len(crystals) == 2) or len(crystals) > 2:
        raise ConfigError(
            f"One set of crystals is evaluated, two are compared with --compare; {len(crystals)} were named"
            f"{' with --compare' if compare else ''}"
        )
    names = None if metrics is None else [name.strip() for name in metrics.split(",") if name.strip()]
    options: dict[str, Any] = {
        "metrics": names,
        "settings": Settings().changed(setting or []),
        "samples": samples,
        "seed": seed,
        "workers": workers,
        "scheduler": scheduler,
        "cache": cache,
        "max_atoms": max_atoms,
    }
    output = Console(highlight=False)
    with _bars() as tell:
        if compare:
            comparison = evaluate_two(
                crystals[0], crystals[1], reference, out=out, on_progress=tell, **options
            )
            reports = [comparison.first, comparison.second]
        else:
            reports = [evaluate_crystals(crystals[0], reference, out=out, on_progress=tell, **options)]
    if compare:
        output.print(_comparison_table(comparison))
    else:
        for table in _tables(reports[0]):
            output.print(table)
    _print_remarks(output, reports)
    output.print(f"Report: {escape(str(out))}", soft_wrap=True)
    empty = [report for report in reports if not any(report.table.column("is_encoded").to_pylist())]
    for report in empty:
        reason = next(filter(None, report.table.column("problem").to_pylist()), "")
        error_console().print(
            f"[red]None of the {report.table.num_rows:,} inputs of "
            f"{escape(str(report.about['crystals']['source']))} is a crystal; the first: {escape(reason)}[/red]"
        )
    failed = sorted({name for report in reports for name in report.problems})
    # Without --metrics everything is tried, and what an extra is missing for is only said.
    if failed and (metrics is not None or not all(report.metrics for report in reports)):
        error_console().print(f"[red]Asked for but not measured: {', '.join(failed)}.[/red]")
        raise typer.Exit(EXIT_FAILED)
    if empty:
        raise typer.Exit(EXIT_FAILED)


@contextmanager
def _bars() -> Iterator[Callable[[Progress], None]]:
    """A bar for the stage that is at work."""
    with count_bar("evaluating") as progress:
        stages: dict[str, Any] = {}

        def tell(state: Progress) -> None:
            if state.stage not in stages:
                for earlier in stages.values():
                    progress.update(earlier, visible=False)
                stages[state.stage] = progress.add_task(state.stage, total=state.total, note="")
            note = state.stage if not state.note else f"{state.stage}: {state.note}"
            progress.update(stages[state.stage], completed=state.done, total=state.total, note=note)

        yield tell


def _tables(report: Report) -> Iterator[Table]:
    """One table per family: value, interval, sample size, ceiling, protocol."""
    from rich.table import Table  # noqa: PLC0415  (not needed for the help text)

    for family, keys in report.families.items():
        if not keys:
            continue
        table = Table(title=family, title_justify="left", title_style="bold", header_style="bold", box=None)
        table.add_column("metric", overflow="fold")
        for title in ("value", "95 %", "n", "held out"):
            table.add_column(title, justify="right", no_wrap=True)
        table.add_column("protocol", style="dim", ratio=1, overflow="fold")
        for key in keys:
            metric = report.metrics[key]
            stated = metric.value is not None and metric.unit not in ("", "share")
            unit = f" {escape(metric.unit)}" if stated else ""
            table.add_row(
                escape(key),
                _number(metric, metric.value) + unit,
                _interval(metric),
                f"{metric.n:,}",
                _number(metric, metric.reference),
                escape(metric.protocol)
                + (f" [yellow]({escape(metric.note)})[/yellow]" if metric.note else ""),
            )
        yield table


def _number(metric: Metric, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.2f} %" if metric.unit == "share" else f"{value:.4g}"


def _interval(metric: Metric) -> str:
    if metric.ci95 is None:
        return "–"
    low, high = metric.ci95
    if metric.unit == "share":
        return f"{100 * low:.1f} to {100 * high:.1f}"
    return f"{low:.3g} to {high:.3g}"


def _comparison_table(comparison: Comparison) -> Table:
    """Both values, their difference with its interval, and the p-value adjusted for all metrics."""
    from rich.table import Table  # noqa: PLC0415  (not needed for the help text)

    first, second = (str(r.about["crystals"]["source"]) for r in (comparison.first, comparison.second))
    title = (
        f"A = {escape(first)}, B = {escape(second)}; p adjusted for {len(comparison.metrics)} metrics (Holm)"
    )
    table = Table(title=title, title_justify="left", header_style="bold", box=None)
    table.add_column("metric", overflow="fold")
    for heading in ("A", "B", "A − B", "95 %", "p"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("better")
    table.add_column("note", style="dim", ratio=1, overflow="fold")
    for name, compared in comparison.metrics.items():
        d, scale = compared.difference, 100 if compared.first.unit == "share" else 1
        table.add_row(
            escape(name),
            _number(compared.first, compared.first.value),
            _number(compared.second, compared.second.value),
            "–" if d is None else f"{scale * d.value:+.3g}",
            "–" if d is None or d.ci95 is None else f"{scale * d.ci95[0]:+.3g} to {scale * d.ci95[1]:+.3g}",
            "–" if compared.p_adjusted is None else f"{compared.p_adjusted:.3f}",
            {"first": "[green]A[/green]", "second": "[green]B[/green]"}.get(compared.better, ""),
            escape(compared.note or ("pairs" if d is not None and d.paired else "")),
        )
    return table


def _print_remarks(output: Console, reports: list[Report]) -> None:
    for report in reports:
        held_out = report.about["reference"]
        if held_out is not None:
            output.print(
                f"Held out: {held_out['num_scored']:,} crystals of {escape(held_out['held_out'])} "
                f"({escape(held_out['store'])})",
                soft_wrap=True,
            )
        for warning in report.warnings:
            output.print(f"[yellow]{escape(warning)}[/yellow]", soft_wrap=True)
