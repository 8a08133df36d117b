"""``nucleate feasible``: the space groups and templates that can hold a formula."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from nucleate.cli.generate import parse_groups, parse_range


def feasible(
    formula: Annotated[str, typer.Option(help="Reduced formula such as SrTiO3.")],
    num_atoms: Annotated[
        str | None, typer.Option(metavar="LO..HI", help="Atoms per primitive cell: 4..12, or one number.")
    ] = None,
    space_group: Annotated[
        str | None, typer.Option(metavar="N", help="Only these groups: 225, 221,225 or 195..230.")
    ] = None,
    crystal_system: Annotated[
        str | None,
        typer.Option(help="triclinic, monoclinic, orthorhombic, tetragonal, trigonal, hexagonal or cubic."),
    ] = None,
    max_templates: Annotated[
        int, typer.Option(min=1, help="Most templates to list or count per group.")
    ] = 20,
    show: Annotated[
        bool, typer.Option("--templates", help="List the templates of the smallest cell.")
    ] = False,
) -> None:
    """List the space groups that can hold a formula, the cells, and the templates of the smallest cell.

    A template counts if its generic crystal has exactly that group. Templates that differ by a change of setting
    or origin are one. A template of the list can be given to `nucleate generate --template`.

    **Examples:**

    - `nucleate feasible --formula SrTiO3`

    - `nucleate feasible --formula SrTiO3 --space-group 221 --num-atoms 5 --templates`
    """
    # These load torch; the help text does not need it.
    from rich.table import Table  # noqa: PLC0415

    from nucleate.generation.condition import Condition  # noqa: PLC0415
    from nucleate.generation.feasible_groups import feasible_groups  # noqa: PLC0415

    condition = Condition(
        formula=formula,
        num_atoms=None if num_atoms is None else parse_range(num_atoms, "--num-atoms"),
        space_groups=() if space_group is None else parse_groups(space_group),
        crystal_system=crystal_system,
    )
    groups = list(feasible_groups(condition, max_templates=max_templates))
    output = Console(highlight=False)
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("group", justify="right", no_wrap=True, min_width=5)
    table.add_column("symbol", no_wrap=True, min_width=10)
    table.add_column("system", no_wrap=True, min_width=12)
    table.add_column("templates", justify="right", no_wrap=True, min_width=9)
    table.add_column("for example", overflow="ellipsis", no_wrap=True)
    table.add_column("atoms per primitive cell", overflow="ellipsis", no_wrap=True)
    for group in groups:
        table.add_row(
            str(group.space_group_number),
            group.symbol,
            group.crystal_system,
            f"{len(group.templates)}{'' if group.complete else '+'}",
            group.templates[0],
            " ".join(map(str, group.num_atoms)),
        )
    output.print(table)
    if show:
        for group in groups:
            output.print(
                f"\n[bold]{group.space_group_number} {group.symbol}[/bold], {group.num_atoms[0]} atoms"
                f"{'' if group.complete else ' (not all)'}:"
            )
            for template in group.templates:
                output.print(f"  {template}", soft_wrap=True)
    output.print(f"{len(groups)} space groups can hold {formula}.")
