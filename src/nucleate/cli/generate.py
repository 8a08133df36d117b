"""``nucleate generate``: complete crystals from any part of one that is given."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from nucleate.cli.current_folder import look_in_current_folder
from nucleate.cli.errors import error_console
from nucleate.cli.symprec import checked_symprec
from nucleate.errors import ConditionError

if TYPE_CHECKING:
    from rich.table import Table

    from nucleate.generation.checks import GeneratedRow
    from nucleate.generation.condition import Condition
    from nucleate.processes.template_process import TemplateTemperature

_MAX_SHOWN = 20


def generate(
    formula: Annotated[
        str | None,
        typer.Option(help="Reduced formula such as SrTiO3; every number of units that fits is tried."),
    ] = None,
    elements: Annotated[
        str | None, typer.Option(help="Elements that must occur, such as Li,O; others may.")
    ] = None,
    allow: Annotated[str | None, typer.Option(help="The only elements that may occur.")] = None,
    exclude: Annotated[str | None, typer.Option(help="Elements that may not occur, such as Pb,Hg.")] = None,
    chemical_system: Annotated[
        str | None, typer.Option(help="Exactly these elements, each of them, such as Li-Fe-O.")
    ] = None,
    num_atoms: Annotated[
        str | None, typer.Option(metavar="LO..HI", help="Atoms per primitive cell: 4..12, or one number.")
    ] = None,
    space_group: Annotated[
        str | None,
        typer.Option(metavar="N", help="Number of the space group; several as 221,225 or 195..230."),
    ] = None,
    crystal_system: Annotated[
        str | None,
        typer.Option(help="triclinic, monoclinic, orthorhombic, tetragonal, trigonal, hexagonal or cubic."),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            help="All orbits by Wyckoff letter, such as 'a b c' or 'Sr:1a Ti:1b O:3c', with the free coordinates that "
            "are given, as in 'Ti:2a O:4f(0.305)'; '...' at the end lets others come. Needs --space-group."
        ),
    ] = None,
    lattice: Annotated[
        str | None,
        typer.Option(
            metavar="a,b,c,α,β,γ",
            help="Conventional cell in Å and degrees in the standard setting. Only groups whose lattices it fits "
            "within a strain of 0.001 are considered; the crystal has the nearest cell of exactly its group's shape.",
        ),
    ] = None,
    parent: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="A crystal (CIF, POSCAR, ...) of which everything is given, group, orbits, coordinates and cell, but "
            "for what --open names.",
        ),
    ] = None,
    opened: Annotated[
        str | None,
        typer.Option(
            "--open",
            metavar="PARTS",
            help="What of the parent is open: elements (or some of them, such as Ti,Sr), coords, lattice, orbits "
            "(others may come); several as elements,lattice.",
        ),
    ] = None,
    symprec: Annotated[
        float | None,
        typer.Option(
            callback=checked_symprec,
            help="How far (Å) the atoms of the parent may lie from their symmetric places.  [default: 0.01]",
        ),
    ] = None,
    neutral: Annotated[
        bool, typer.Option("--neutral", help="Only compositions with oxidation states that sum to zero.")
    ] = False,
    properties: Annotated[
        list[str] | None,
        typer.Option(
            "--property",
            metavar="NAME=LO..HI",
            help="Property as the weights read it, such as band_gap=1..2, band_gap=3.. or one value; may be repeated. "
            "Of several candidates the first within it is kept, or the nearest.",
        ),
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Data set whose character the crystals should have, such as mp_20.")
    ] = None,
    n: Annotated[int, typer.Option("-n", min=1, help="Crystals wanted.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="The same seed, the same crystals.")] = 0,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Crystals sampled together and written together; 256, and 1000 on an accelerator, if not given.",
        ),
    ] = None,
    steps: Annotated[
        int, typer.Option(min=1, help="Passes of the geometry network from noise to crystal.")
    ] = 8,
    restarts: Annotated[
        int,
        typer.Option(min=0, help="Times a finished geometry gets some noise again and is denoised again."),
    ] = 3,
    autoguidance: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="How far guesses are led away from those of the weaker network in the weights; 0 is without.  "
            "[default: 1.5, where the weights hold one]",
        ),
    ] = None,
    candidates: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Geometries drawn per crystal, of which the one the network believes in most stays; where atoms are "
            "given, by coordinates or in their cell, and elements or orbits are open, each with a template of its "
            "own. With --property the most that are tried.  [default: 1, 16 there, and 32 with --property]",
        ),
    ] = None,
    ranked: Annotated[
        int,
        typer.Option(
            min=0,
            help="Templates drawn beforehand; crystals then come on the different ones, the most frequent first: the "
            "best answers to a formula. 200 is a good number.",
        ),
    ] = 0,
    temperature: Annotated[
        str,
        typer.Option(
            metavar="T|T,T,T",
            help="Of the choice of group, positions and elements, one number for all or one each: 1 is the "
            "network's own distribution, below 1 is more typical.",
        ),
    ] = "0.85,0.7,0.8",
    charge_weight: Annotated[
        float,
        typer.Option(
            min=0,
            help="How often charge balance counts in the choice of elements where the formula is open: 1 is as the "
            "network learned it, more gives more compositions that balance.",
        ),
    ] = 3.0,
    lattice_temperature: Annotated[
        float, typer.Option(min=0, help="Of the noise the lattice starts from; below 1 is more typical.")
    ] = 0.5,
    guidance: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TERM=STRENGTH",
            help="Soft physics that pulls while sampling: distance, volume, density, bond_valence, repulsion, "
            "or the module:function of an energy (also in the current folder); may be repeated; none switches it off.  "
            "[default: distance=20 volume=3]",
        ),
    ] = None,
    mixed_precision: Annotated[
        bool,
        typer.Option(
            "--mixed-precision",
            help="Matrix products in bfloat16: faster on accelerators and on processors made for it.",
        ),
    ] = False,
    workers: Annotated[
        int,
        typer.Option(
            min=1, help="Processes that sample side by side, a batch each; 2 on two cores, cpu only."
        ),
    ] = 1,
    device: Annotated[str, typer.Option(help="Where the networks run: cpu, cuda, cuda:1.")] = "cpu",
    weights: Annotated[
        Path | None, typer.Option(help="Weights to use instead of those that come with nucleate.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path("out/generate"),
) -> None:
    """Generate crystals that have exactly what is asked for.

    Whatever is not given is sampled. The folder then holds `crystals/*.cif`, `crystals.csv` and
    `crystals.parquet` (one row per crystal, every check in it) and `run.json`. A condition that no crystal can
    meet is refused at once, with the reason. A run that was stopped goes on when the command is repeated.

    **Examples:**

    - `nucleate generate --formula SrTiO3 -n 8 --seed 0 --out out/`

    - `nucleate generate --chemical-system Li-Fe-O --num-atoms 4..14 --crystal-system cubic -n 20`

    - `nucleate generate --formula CaTiO3 --source mp_20 --ranked 200 --candidates 6 -n 3` (likeliest first)

    - `nucleate generate --space-group 221 --template "Sr:1a Ti:1b O:3c" -n 1`

    - `nucleate generate --parent rutile.cif --open Ti,lattice -n 8` (what else could be in the place of Ti)

    - `nucleate generate --parent host.cif --open orbits,lattice --formula LiFePO4` (what is missing, added)

    - `nucleate generate --formula NaCl --lattice 5.64,5.64,5.64,90,90,90 --space-group 225`

    - `nucleate generate --chemical-system Na-Cl -n 20 --candidates 4 --guidance distance=20 --guidance volume=10`

    - `nucleate generate --elements O --property band_gap=2..3 --property formation_energy_per_atom=..-2 -n 8`

    - `nucleate generate -n 1000 --neutral --exclude Hg,Pb,Cd --workers 2 --out screening`
    """
    # These load torch; the help text does not need it.
    from nucleate.cli.progress_bars import share_bar  # noqa: PLC0415
    from nucleate.generation.allocator import keep_freed_memory  # noqa: PLC0415
    from nucleate.generation.condition import Condition  # noqa: PLC0415
    from nucleate.generation.formula import parse_elements  # noqa: PLC0415
    from nucleate.generation.generator import load  # noqa: PLC0415
    from nucleate.generation.property_targets import parse_properties  # noqa: PLC0415

    keep_freed_memory()

    def listed(text: str | None) -> tuple[str, ...]:
        return () if text is None else parse_elements(text)

    given: dict[str, Any] = {
        "formula": formula,
        "elements": listed(elements),
        "allowed": None if allow is None else listed(allow),
        "excluded": listed(exclude),
        "chemical_system": chemical_system,
        "num_atoms": None if num_atoms is None else parse_range(num_atoms, "--num-atoms"),
        "space_groups": () if space_group is None else parse_groups(space_group),
        "crystal_system": crystal_system,
        "template": template,
        "lattice": None if lattice is None else parse_lattice(lattice),
        "neutral": neutral,
        "properties": parse_properties(properties or ()),
        "source": source,
    }
    if parent is None and (opened is not None or symprec is not None):
        raise ConditionError("--open and --symprec belong to a parent: name its file with --parent.")
    condition = Condition(**given) if parent is None else _from_parent(parent, opened, symprec, given)
    strengths = parse_strengths(guidance) if guidance else None
    if any(":" in name for name in strengths or ()):
        look_in_current_folder()
    generator = load(weights, device=parse_device(device))
    with share_bar("generating") as progress:
        bar = progress.add_task("generating", total=1.0, note=f"0 of {n:,} crystals")
        result = generator.generate(
            condition,
            n,
            seed,
            batch_size=batch_size,
            steps=steps,
            restarts=restarts,
            autoguidance=autoguidance,
            candidates=candidates,
            ranked=ranked,
            temperature=parse_temperature(temperature),
            charge_weight=charge_weight,
            lattice_temperature=lattice_temperature,
            guidance=strengths,
            mixed_precision=mixed_precision,
            workers=workers,
            out=out,
            on_progress=lambda p: progress.update(
                bar, completed=p.fraction, note=f"{p.done:,} of {p.total:,} crystals"
            ),
        )
    output = Console(highlight=False)
    output.print(_table(result.rows[:_MAX_SHOWN], output.width))
    if len(result.rows) > _MAX_SHOWN:
        output.print(f"... and {len(result.rows) - _MAX_SHOWN:,} more")
    output.print(_summary(result.rows))
    for target in condition.targets:
        values = [row.predicted[target.name] for row in result.rows]
        met = f", {sum(target.low <= value <= target.high for value in values):,} within"
        output.print(
            f"{target.name} asked {target.text}: {min(values):.3g} to {max(values):.3g}"
            f"{met if target.low < target.high else ''}, as the weights read it"
        )
    output.print(
        f"Written to {escape(str(out))}: crystals/*.cif, crystals.csv, crystals.parquet, run.json",
        soft_wrap=True,
    )
    broken = [row.id for row in result.rows if row.problem]
    if broken:
        error_console().print(
            f"[yellow]Checks could not be made for {len(broken)} crystals ({', '.join(broken[:3])}); see column "
            "problem.[/yellow]"
        )


def _from_parent(file: str, opened: str | None, symprec: float | None, given: dict[str, Any]) -> Condition:
    """The condition with what is given of the crystal in a file."""
    from nucleate.cli.structure_files import read_crystal  # noqa: PLC0415  (with what it reads)
    from nucleate.generation.condition import Condition  # noqa: PLC0415  (torch takes seconds to load)

    parts = [part for part in re.split(r"[\s,]+", opened or "") if part]
    return Condition.from_parent(
        read_crystal(file, symprec=0.01 if symprec is None else symprec), parts, **given
    )


def parse_range(text: str, option: str) -> tuple[int, int]:
    """Both ends of ``4..12``, or of one number."""
    match = re.fullmatch(r"\s*(\d+)\s*(?:\.\.\s*(\d+)\s*)?", text)
    if match is None:
        raise ConditionError(f"{option} takes a range such as 4..12 or one number, got {text!r}.")
    low = int(match[1])
    return low, int(match[2]) if match[2] else low


def parse_groups(text: str) -> tuple[int, ...]:
    """Space group numbers of ``225``, ``221,225`` or ``195..230``."""
    numbers: list[int] = []
    for part in text.split(","):
        low, high = parse_range(part, "--space-group")
        if high > 230 or low < 1:
            raise ConditionError(f"Space group numbers run from 1 to 230, got {part.strip()}.")
        numbers += range(low, high + 1)
    return tuple(dict.fromkeys(numbers))


def parse_lattice(text: str) -> tuple[float, float, float, float, float, float]:
    """Six numbers: lengths in Å, angles in degrees."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != 6:
        raise ConditionError(f"--lattice takes six numbers a,b,c,alpha,beta,gamma, got {text!r}.")
    a, b, c, alpha, beta, gamma = values
    return a, b, c, alpha, beta, gamma


def parse_strengths(texts: Sequence[str]) -> dict[str, float]:
    """Strength of each term of ``distance=20 volume=1``; nothing for ``none``."""
    strengths: dict[str, float] = {}
    if list(texts) == ["none"]:
        return strengths
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            strengths[name] = float(number)
        except ValueError:
            name = ""
        if not name:
            raise ConditionError(
                f"--guidance takes TERM=STRENGTH such as distance=20, or none alone, got {text!r}."
            )
    return strengths


def parse_temperature(text: str) -> TemplateTemperature:
    """One temperature for all choices of a template, or those of group, positions and elements."""
    from nucleate.processes.template_process import TemplateTemperature  # noqa: PLC0415  (torch takes seconds to load)

    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 3):
        raise ConditionError(
            f"--temperature takes one number, or three as 0.85,0.7,0.8 (group, positions, elements), got {text!r}."
        )
    return TemplateTemperature(*(numbers if len(numbers) == 3 else 3 * numbers))


def parse_device(text: str) -> Any:
    """A torch device that this machine has and that has double precision."""
    import torch  # noqa: PLC0415  (seconds to load; the help text does not need it)

    try:
        device = torch.device(text)
        torch.zeros(1, device=device, dtype=torch.float64)
    except TypeError as error:  # Apple's graphics processors
        raise ConditionError(
            f"The device {text!r} has no double precision, in which cells are computed; use cpu."
        ) from error
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].split(". ")[0]  # what else torch says fills a screen
        raise ConditionError(f"There is no device {text!r} here ({reason}); try cpu.") from error
    return device


def _table(rows: Sequence[GeneratedRow], width: int) -> Table:
    """What people look at first; orbits are cut off where the terminal ends."""
    from rich.table import Table  # noqa: PLC0415  (not needed for the help text)

    table = Table(box=None, header_style="bold", pad_edge=False)
    widest = max((len(row.id) for row in rows), default=2)
    table.add_column("id", no_wrap=True, min_width=widest)
    ranked = any(row.template_share is not None for row in rows)
    names = list(rows[0].predicted) if rows else []
    titles = (*(("share",) if ranked else ()), *names, "atoms", "group", "found", "g/cm³", "min Å")
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True, min_width=len(title))
    table.add_column("neutral", no_wrap=True, min_width=7)
    left = width - widest - sum(2 + max(5, len(title)) for title in (*titles, "neutral")) - 2
    table.add_column("orbits", overflow="ellipsis", no_wrap=True, max_width=max(left, len("orbits")))
    for row in rows:
        found = "" if row.space_group is None else str(row.space_group)
        table.add_row(
            row.id,
            *([f"{row.template_share:.1%}"] if row.template_share is not None else []),
            *(f"{value:.2f}" for value in row.predicted.values()),
            str(row.num_atoms),
            str(row.space_group_asked),
            found if row.space_group == row.space_group_asked else f"[yellow]{found}[/yellow]",
            f"{row.density:.2f}",
            f"{row.min_distance:.2f}"
            if row.min_distance_ratio >= 1
            else f"[yellow]{row.min_distance:.2f}[/yellow]",
            "yes" if row.charge_neutral else "[yellow]no[/yellow]",
            row.wyckoff,
        )
    return table


def _summary(rows: Sequence[GeneratedRow]) -> str:
    parts = [
        f"{len(rows):,} crystals",
        f"{len({row.formula for row in rows}):,} formulas",
        f"{len({row.space_group_asked for row in rows}):,} space groups",
        f"{sum(row.min_distance_ratio >= 1 for row in rows):,} without too near atoms",
        f"{sum(row.charge_neutral for row in rows):,} charge neutral",
    ]
    looked = [row for row in rows if row.space_group is not None]
    if looked:
        parts.append(
            f"{sum(r.space_group == r.space_group_asked for r in looked):,} found in their own group"
        )
    return ", ".join(parts)
