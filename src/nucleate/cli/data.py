"""``nucleate data``: build a store of encoded crystals, look into it, and write its structures as files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from nucleate.cli.errors import EXIT_FAILED, CommandGroup, error_console
from nucleate.cli.progress_bars import count_bar
from nucleate.cli.symprec import Symprec
from nucleate.errors import NucleateError

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.table import Table

    from nucleate.data import BuildProgress, BuildReport, Store
    from nucleate.data.summary import StoreSummary

data_app = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Build stores of encoded crystals, look into them, and write their structures as files.\n\n"
    "**Example:** `nucleate data build structures/ --out store`",
)

_StoreArgument = Annotated[
    str, typer.Argument(metavar="DIR", help="A store: folder or URL (`s3://bucket/store`).")
]


class Split(StrEnum):
    """Rules by which records are divided into train, val and test."""

    RANDOM = "random"
    FORMULA = "formula"
    PROTOTYPE = "prototype"
    TIME = "time"
    GIVEN = "given"


class Format(StrEnum):
    """File formats of exported structures."""

    CIF = "cif"
    POSCAR = "poscar"
    EXTXYZ = "extxyz"


class Cell(StrEnum):
    """Cells of exported structures."""

    CONVENTIONAL = "conventional"
    PRIMITIVE = "primitive"
    ORIGINAL = "original"


@data_app.command("build")
def build(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A structure file, folder, archive, table or database, or `jarvis:dft_3d`, `mp:`, `cod:`, "
            "`icsd:`, `optimade:`, `oqmd:` with what to take.",
        ),
    ],
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="DIR", help="New folder, or URL (`s3://bucket/store`).")
    ],
    properties: Annotated[
        Path | None,
        typer.Option(help="CSV or Parquet table to join by id; a header `band_gap (eV)` names a unit."),
    ] = None,
    properties_id: Annotated[
        str | None, typer.Option(help="Column of ids in that table, where its name does not tell.")
    ] = None,
    split: Annotated[
        Split,
        typer.Option(
            help="What stays together: nothing, formulas, prototypes; by date; or as a column says."
        ),
    ] = Split.RANDOM,
    split_column: Annotated[
        str | None,
        typer.Option(help="Property with the date (`time`) or the split (`given`; by default `split`)."),
    ] = None,
    fractions: Annotated[str, typer.Option(help="Shares of train, val and test.")] = "0.8,0.1,0.1",
    seed: Annotated[int, typer.Option(help="Another seed, another random, formula or prototype split.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes on this machine.")] = 1,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="URL", help="A running Dask scheduler (`tcp://host:8786`) to use instead."),
    ] = None,
    symprec: Symprec = 0.01,
    max_atoms: Annotated[int, typer.Option(min=1, help="Leave out cells with more atoms than this.")] = 1000,
    keep_frame: Annotated[
        bool,
        typer.Option(
            "--keep-frame",
            help="Also store the way back to the cells of the source, and what their sites carry.",
        ),
    ] = False,
    pseudo_symmetry: Annotated[
        bool, typer.Option("--pseudo-symmetry", help="Also store the space groups at 0.1, 0.01 and 0.001 Å.")
    ] = False,
    source_option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="Option of the source, such as `id_column=ref` or `licence=CC-BY-4.0`."
        ),
    ] = None,
) -> None:
    """Encode every crystal of SOURCE into a store.

    The store is a folder of Parquet shards with a `manifest.json`. What is left out stands in its
    `rejected.csv`, with file, row and reason. A build that was stopped goes on when the command is repeated.

    **Examples:**

    - `nucleate data build structures/ --out store`

    - `nucleate data build mp_20.csv --out store --split formula --workers 4`

    - `nucleate data build cifs.zip --out s3://bucket/store --properties gaps.csv`
    """
    from nucleate.data.build import build_store  # noqa: PLC0415  (loads the readers)

    output = Console(highlight=False)
    with (
        _kept(f"what is done is kept in {out}: repeat the command to go on."),
        count_bar("encoding") as progress,
    ):
        report = build_store(
            source,
            out,
            properties_table=properties,
            properties_id_column=properties_id,
            split=split.value,
            split_column=split_column,
            fractions=_numbers(fractions),
            seed=seed,
            workers=workers,
            scheduler=scheduler,
            symprec=symprec,
            max_atoms=max_atoms,
            keep_frame=keep_frame,
            pseudo_symmetry=pseudo_symmetry,
            source_options=_options(source_option or []),
            on_progress=_build_bar(progress),
        )
    _print_report(output, report)
    if report.num_records == 0:
        error_console().print(f"[red]No record of {escape(source)} could be encoded.[/red]")
        raise typer.Exit(EXIT_FAILED)


@data_app.command("info")
def info(
    store: _StoreArgument,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FOLDER", help="Folder of the drawings, `DIR/plots` unless given."
        ),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Only this split.")] = None,
) -> None:
    """Summarise a store and draw its space groups, elements, orbits, atoms and densities (PNG).

    **Examples:**

    - `nucleate data info store`

    - `nucleate data info s3://bucket/store --split test --out plots`
    """
    from nucleate.data import Store  # noqa: PLC0415  (loads pyarrow)
    from nucleate.data.folder import is_url  # noqa: PLC0415
    from nucleate.data.plots import draw_summary  # noqa: PLC0415  (loads matplotlib)
    from nucleate.data.summary import summarise  # noqa: PLC0415

    opened = Store.open(store)
    chosen = opened if split is None else opened.split(split)
    summary = summarise(chosen)
    output = Console(highlight=False)
    output.print(_info_table(opened, summary, split))
    if out is None and is_url(store):
        output.print("No drawings: the store is a URL; name a folder for them with --out.")
        return
    folder = out or Path(store) / "plots"
    title = f"{opened.manifest.source.get('name') or Path(store).name}{f', {split}' if split else ''}"
    draw_summary(summary, folder, title=f"{title}: {summary.num_records:,} crystals")
    output.print(f"Drawings: {escape(str(folder))}", soft_wrap=True)


@data_app.command("show")
def show(
    store: _StoreArgument,
    record_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the record, as in the source.")],
) -> None:
    """Show one record: its asymmetric unit, its properties and where it came from.

    **Example:** `nucleate data show store mp-149`
    """
    from nucleate.cli.crystal_view import crystal_panel, group_name  # noqa: PLC0415  (loads numpy)
    from nucleate.data import Store  # noqa: PLC0415  (loads pyarrow)

    opened = Store.open(store)
    record = opened.get(record_id)
    properties = opened.manifest.properties
    details = {
        "from the input": f"{record.max_displacement:.2e} Å displacement, {record.max_strain:.2e} strain",
        "source": f"{record.provenance.file}, row {record.provenance.row} ({record.provenance.source})",
        "split": record.split,
    }
    if record.provenance.licence:
        details["licence"] = record.provenance.licence
    if record.space_group_numbers:
        groups = (f"{t:g} Å: {group_name(n)}" for t, n in record.space_group_numbers.items())
        details["group by symprec"] = "   ".join(groups)
    for name, value in record.properties.items():
        unit = properties[name].unit
        details[name] = f"{value:.8g}" if isinstance(value, float) else str(value)
        details[name] += f" {unit}" if unit else ""
    Console(highlight=False).print(crystal_panel(record.crystal, title=record.id, details=details))


@data_app.command("export")
def export(
    store: _StoreArgument,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Folder for the files.")],
    file_format: Annotated[Format, typer.Option("--format", "-f", help="Format of the files.")] = Format.CIF,
    cell: Annotated[
        Cell,
        typer.Option(
            help="Cell to write; `original` is the source's own, with what its sites carry "
            "(a store built with --keep-frame)."
        ),
    ] = Cell.CONVENTIONAL,
    split: Annotated[str | None, typer.Option(help="Only this split.")] = None,
) -> None:
    """Write the structures of a store as files, one per record, named by its id.

    Ids that are no safe file names are cleaned and marked; `index.csv` says which record is in which file. An
    export that was stopped goes on when the command is repeated.

    **Examples:**

    - `nucleate data export store --out cifs`

    - `nucleate data export store --out poscars --format poscar --split test`

    - `nucleate data export store --out moments --format extxyz --cell original`
    """
    from nucleate.data import Store  # noqa: PLC0415  (loads pyarrow)
    from nucleate.data.export import export_store  # noqa: PLC0415

    opened = Store.open(store)
    chosen = opened if split is None else opened.split(split)
    with (
        _kept(f"what is written is kept in {out}: repeat the command to go on."),
        count_bar("writing") as progress,
    ):
        bar = progress.add_task("writing", total=len(chosen), note="")
        report = export_store(
            chosen,
            out,
            format=file_format.value,
            cell=cell.value,
            on_progress=lambda done, _: progress.update(bar, completed=done),
        )
    kept = f", {report.num_kept:,} were there already" if report.num_kept else ""
    Console(highlight=False).print(
        f"{report.num_written:,} files written to {escape(str(out))}{kept}.", soft_wrap=True
    )


@contextmanager
def _kept(what: str) -> Iterator[None]:
    """Tell the user of an interrupted command what is kept."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(what) from interrupt


def _build_bar(progress: Progress) -> Callable[[BuildProgress], None]:
    """What shows the progress of a build; the time left counts from what this run does itself."""
    bar = None

    def show_progress(state: BuildProgress) -> None:
        nonlocal bar
        left_out = f"[yellow]{state.num_left_out:,} left out" if state.num_left_out else ""
        if bar is None:
            bar = progress.add_task("encoding", total=state.total, completed=state.done, note=left_out)
        progress.update(bar, completed=state.done, note=left_out)

    return show_progress


def _print_report(output: Console, report: BuildReport) -> None:
    manifest = report.manifest
    rate = (report.num_records + report.num_rejected - report.num_resumed) / max(report.seconds, 1e-9)
    output.print(
        f"[bold]{report.num_records:,}[/bold] crystals in {escape(report.location)} "
        f"({report.seconds:.1f} s, {rate:.0f} per second)",
        soft_wrap=True,
    )
    if report.num_resumed:
        output.print(f"{report.num_resumed:,} inputs were done by an earlier run.")
    if report.num_rejected:
        reasons = _listed(manifest.reasons)
        output.print(
            f"[yellow]{report.num_rejected:,} left out[/yellow] ({escape(reasons)}); see rejected.csv"
        )
    output.print(f"splits: {_listed(manifest.split_counts)}")
    output.print(f"content hash: {manifest.content_hash}", soft_wrap=True)
    for remark in report.remarks():
        output.print(f"[yellow]Note:[/yellow] {escape(remark)}", soft_wrap=True)


def _info_table(store: Store, summary: StoreSummary, split: str | None) -> Table:
    import numpy as np  # noqa: PLC0415  (the commands load it, the help does not)
    from rich.table import Table  # noqa: PLC0415

    from nucleate.cli.crystal_view import group_name  # noqa: PLC0415
    from nucleate.crystal.elements import element_symbol  # noqa: PLC0415

    manifest = store.manifest
    groups = summary.space_groups
    num_bytes = sum(shard.num_bytes for shard in manifest.shards)

    def most_frequent(counts: np.ndarray, name: Callable[[int], str]) -> str:
        best = np.argsort(-counts, kind="stable")[:6]
        return ", ".join(f"{name(int(i) + 1)} {counts[i]:,}" for i in best if counts[i])

    def middle(counts: np.ndarray) -> str:
        mean = (np.arange(len(counts)) * counts).sum() / max(1, counts.sum())
        return f"{mean:.2f} on average, at most {len(counts) - 1}"

    lines: dict[str, Any] = {
        "records": f"{summary.num_records:,}"
        + (f" (split {split} of {manifest.num_records:,})" if split else ""),
        "left out": _counted(manifest.num_rejected, manifest.reasons),
        "splits": f"{_listed(manifest.split_counts)} (by {manifest.split['method']})",
        "space groups": f"{(groups > 0).sum()} of 230; {most_frequent(groups, group_name)}",
        "elements": f"{(summary.elements > 0).sum()}; {most_frequent(summary.elements, element_symbol)}",
        "prototypes": f"{summary.num_prototypes:,}",
        "chiral": f"{summary.num_chiral:,}",
        "orbits": middle(summary.num_orbits),
        "atoms (primitive)": middle(summary.num_atoms),
        "density": f"{summary.mean_density:.3f} g/cm³ on average",
        "properties": "\n".join(
            f"{n}{f' ({c.unit})' if c.unit else ''}: {c.kind}, {c.count:,} records"
            for n, c in manifest.properties.items()
        )
        or "none",
        "source": manifest.source.get("spec"),
        "licence": ", ".join(manifest.source.get("licences") or [])
        or manifest.source.get("licence")
        or "not stated",
        "encoded with": f"symprec {manifest.encoding['symprec']:g} Å, nucleate {manifest.nucleate_version}",
        "shards": f"{len(manifest.shards)}, {num_bytes / 1e6:.1f} MB, schema {manifest.schema_version}",
        "content hash": manifest.content_hash,
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in lines.items():
        table.add_row(name, escape(str(value)))
    return table


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _counted(total: int, reasons: Mapping[str, int]) -> str:
    return f"{total:,} ({_listed(reasons)})" if reasons else f"{total:,}"


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise NucleateError(f"--fractions takes three numbers such as 0.8,0.1,0.1, got {text!r}") from error


def _options(pairs: list[str]) -> dict[str, str]:
    for pair in pairs:
        if not pair.partition("=")[1]:
            raise NucleateError(f"--source-option takes NAME=VALUE, got {pair!r}")
    return dict(pair.split("=", 1) for pair in pairs)
