"""``nucleate screen``: from many candidates to the few worth a DFT run."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from nucleate.cli.errors import EXIT_FAILED, error_console
from nucleate.cli.progress_bars import stage_bars

if TYPE_CHECKING:
    from rich.table import Table

    from nucleate.screening.funnel import ScreeningReport

_REASONS = 3


def screen(
    crystals: Annotated[
        str,
        typer.Argument(
            metavar="CRYSTALS",
            help="A folder of CIF or POSCAR files, an archive, a table (CSV, Parquet), extxyz, an ASE database, a "
            "store, or a folder of `nucleate generate`.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder of the results.")],
    steps: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="In order, joined by commas: dedupe, relax, hull, phonon, elastic, dft. `dedupe` may stand again "
            "after relax.",
        ),
    ] = "dedupe,relax,hull",
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference",
            "-r",
            metavar="STORE",
            help="Crystals of the hull: a store of `nucleate data build`.",
        ),
    ] = None,
    potential: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="chgnet, mace, orb, sevennet, mattersim (where installed), or MODULE:FACTORY of an ASE calculator.",
        ),
    ] = "chgnet",
    device: Annotated[str, typer.Option(metavar="NAME", help="Torch device of the potential.")] = "cpu",
    energy_column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Use known energies (eV/atom) of this column, of candidates and reference, and no potential.",
        ),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="STEP.NAME=VALUE", help="Another setting, such as `relax.pressure=10`."
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="Time of one crystal in one step before it is given up.")
    ] = 600.0,
    workers: Annotated[int, typer.Option(min=1, help="Processes on this machine.")] = 1,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="URL", help="A running Dask scheduler (`tcp://host:8786`) to use instead."),
    ] = None,
    cluster: Annotated[
        Path | None,
        typer.Option(
            metavar="YAML", help="Workers from a batch queue (SLURM, PBS, ...), described in a file."
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of verdicts and energies; `DIR/work` by default."),
    ] = None,
    symprec: Annotated[
        float, typer.Option(metavar="Å", help="Tolerance of the symmetry of the candidates.")
    ] = 0.01,
    max_atoms: Annotated[int, typer.Option(min=1, help="Larger cells are not read.")] = 1000,
    diagrams: Annotated[int, typer.Option(min=0, help="Most hull diagrams to draw.")] = 12,
) -> None:
    """Send candidates through a funnel of steps: one row per candidate, and a reason for every one that left.

    The folder then holds `crystals.parquet` and `crystals.csv`, the CIFs of the survivors in `crystals/`, what steps
    drew or wrote in `details/`, `funnel.png`, `hull_diagrams/` and `run.json`. Every crystal's verdict is kept as soon
    as it is there: a run that was stopped or killed goes on when the command is repeated.

    **Examples:**

    - `nucleate screen samples/ --out screened --reference store`

    - `nucleate screen samples/ --steps dedupe,relax,hull,phonon --set hull.threshold=0.05 --out screened --workers 4`

    - `nucleate screen wbm.parquet --steps dedupe,hull --energy-column energy_per_atom -r store --out screened`

    - `nucleate screen samples/ --out screened --reference store --cluster slurm.yaml`
    """
    from nucleate.errors import ConfigError  # noqa: PLC0415  (the help text needs none of this)
    from nucleate.evaluation.workers import Workers  # noqa: PLC0415
    from nucleate.screening.cluster import batch_cluster  # noqa: PLC0415
    from nucleate.screening.funnel import screen as screen_crystals  # noqa: PLC0415
    from nucleate.screening.settings import ScreeningSettings  # noqa: PLC0415
    from nucleate.screening.step import Resources  # noqa: PLC0415

    if scheduler is not None and cluster is not None:
        raise ConfigError("--scheduler names a running cluster and --cluster starts one: give one of them")
    settings = ScreeningSettings.of(
        [name.strip() for name in steps.split(",") if name.strip()],
        setting or [],
        resources=Resources(potential, device, reference, energy_column or ""),
        timeout=timeout,
        symprec=symprec,
        max_atoms=max_atoms,
        diagrams=diagrams,
    )
    with ExitStack() as stack:
        if cluster is not None:
            scheduler = stack.enter_context(batch_cluster(cluster))
        tell = stack.enter_context(stage_bars("screening"))
        report = screen_crystals(
            crystals, out, settings, workers=Workers(workers, scheduler), cache=cache, on_progress=tell
        )
    output = Console(highlight=False)
    output.print(_table(report))
    if report.num_known:
        output.print(f"{report.num_known:,} verdicts were known from an earlier run.")
    output.print(
        f"{report.num_survivors:,} of {report.num_candidates:,} candidates passed: {escape(str(out))}",
        soft_wrap=True,
    )
    if report.counts[0].passed == 0:
        reason = next((kind for kind, _ in report.counts[0].reasons), "")
        error_console().print(
            f"[red]None of the {report.num_candidates:,} inputs is a crystal: {escape(reason)}[/red]"
        )
        raise typer.Exit(EXIT_FAILED)


def _table(report: ScreeningReport) -> Table:
    """One line per step: what went in, what became of it, and why."""
    from rich.table import Table  # noqa: PLC0415  (not needed for the help text)

    table = Table(header_style="bold", box=None)
    table.add_column("step")
    for title in ("in", "passed", "left", "failed"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("most frequent reasons", style="dim", ratio=1, overflow="fold")
    for count in report.counts:
        reasons = "; ".join(f"{number:,} {kind}" for kind, number in count.reasons[:_REASONS])
        numbers = (count.given, count.passed, count.left, count.failed)
        table.add_row(escape(count.step), *(f"{number:,}" for number in numbers), escape(reasons))
    return table
