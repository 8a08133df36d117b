"""One encoded crystal as a panel for people and as plain values for JSON."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Group
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from nucleate.crystal import Crystal, space_group
from nucleate.crystal.elements import element_symbol

if TYPE_CHECKING:
    from nucleate.crystal import EncodedStructure, WyckoffPosition
    from nucleate.data.record import Record

HANDS = {1: "right (+1)", -1: "left (-1)", 0: "none"}


def group_name(number: int) -> str:
    """Symbol and number of a space group, such as ``Fm-3m (225)``."""
    return f"{space_group(number).symbol} ({number})"


def cell_parameters(crystal: Crystal) -> tuple[float, float, float, float, float, float]:
    """a, b, c in Å and alpha, beta, gamma in degrees of the conventional cell."""
    lattice = crystal.lattice
    lengths = np.linalg.norm(lattice, axis=1)
    cosines = (lattice @ lattice.T) / np.outer(lengths, lengths)
    angles = np.degrees(np.arccos(np.clip(cosines[[1, 0, 0], [2, 2, 1]], -1.0, 1.0)))
    a, b, c, alpha, beta, gamma = (float(x) for x in (*lengths, *angles))
    return a, b, c, alpha, beta, gamma


def coordinate_formula(position: WyckoffPosition) -> str:
    """The position's representative with its free coordinates as letters: ``u, u + 1/2, 0``."""
    letters = "uvw"[: position.num_free]
    return ", ".join(_affine(row, letters, shift) for row, shift in zip(position.basis, position.origin))


def crystal_values(crystal: Crystal) -> dict[str, Any]:
    """Everything that describes a crystal, in plain numbers and text."""
    group, representatives = crystal.group, crystal.representatives
    a, b, c, alpha, beta, gamma = cell_parameters(crystal)
    return {
        "formula": crystal.formula,
        "space_group_number": crystal.space_group_number,
        "space_group_symbol": group.symbol,
        "crystal_system": group.crystal_system,
        "lattice_params": crystal.lattice_params.tolist(),
        "cell": {"a": a, "b": b, "c": c, "alpha": alpha, "beta": beta, "gamma": gamma},
        "lattice": crystal.lattice.tolist(),
        "volume_per_atom": crystal.volume_per_atom,
        "density": crystal.density,
        "num_atoms": crystal.num_atoms,
        "num_atoms_primitive": crystal.num_atoms_primitive,
        "num_free_coords": crystal.num_free_coords,
        "orbits": [
            {
                "element": element_symbol(int(z)),
                "atomic_number": int(z),
                "wyckoff_letter": position.letter,
                "multiplicity": position.multiplicity,
                "site_symmetry": position.site_symmetry,
                "free_coords": free[: position.num_free].tolist(),
                "frac_coords": coords.tolist(),
            }
            for z, position, free, coords in zip(
                crystal.atomic_numbers, crystal.positions, crystal.free_coords, representatives
            )
        ],
        "prototype_key": crystal.prototype_key,
        "bucket_key": crystal.bucket_key,
        "handedness": crystal.handedness,
    }


def encoding_values(
    record: Record, encoded: EncodedStructure, groups: Mapping[float, int | None]
) -> dict[str, Any]:
    """`crystal_values`, where the structure came from, and what ties the crystal to the atoms of the input.

    ``atom_to_orbit`` and ``site_properties`` (isotopes, oxidation states, moments, forces, ... in the input's
    frame) have one entry per atom of the input; what a site does not state is null.
    """
    return {
        "id": record.id,
        "file": record.provenance.file,
        "row": record.provenance.row,
        **crystal_values(encoded.crystal),
        "max_displacement": encoded.max_displacement,
        "max_strain": encoded.max_strain,
        "space_group_numbers": {f"{tolerance:g}": number for tolerance, number in groups.items()},
        "atom_to_orbit": encoded.atom_to_orbit.tolist(),
        "site_properties": {
            name: _plain(np.asarray(values).tolist()) for name, values in encoded.site_properties.items()
        },
    }


def encoding_panel(record: Record, encoded: EncodedStructure, groups: Mapping[float, int | None]) -> Panel:
    """One encoded structure as a framed summary with its table of orbits."""
    displacement = f"{encoded.max_displacement:.2e} Å displacement, {encoded.max_strain:.2e} strain"
    lines = {
        "from the input": displacement,
        "group by symprec": "   ".join(
            f"{t:g} Å: {group_name(n) if n else 'none found'}" for t, n in groups.items()
        ),
    }
    if carried := [name for name in encoded.site_properties if name != "label"]:
        lines["carried along"] = f"{', '.join(carried)} of the input's {encoded.num_atoms} atoms"
    return crystal_panel(encoded.crystal, title=_place(record), details=lines)


def crystal_panel(crystal: Crystal, *, title: str, details: Mapping[str, str] | None = None) -> Panel:
    """A crystal as a framed summary with its table of orbits.

    Args:
        crystal: what to show.
        title: stands in the frame.
        details: further lines of the summary, by name.
    """
    a, b, c, alpha, beta, gamma = cell_parameters(crystal)
    lines = {
        "space group": f"{group_name(crystal.space_group_number)}, {crystal.group.crystal_system}",
        "cell": f"a {a:.5g}  b {b:.5g}  c {c:.5g} Å   α {alpha:.5g}  β {beta:.5g}  γ {gamma:.5g}°",
        "lattice parameters": "  ".join(f"{p:.6f}" for p in crystal.lattice_params),
        "size": f"{crystal.num_atoms_primitive} atoms (primitive), {crystal.num_atoms} (conventional), "
        f"{crystal.volume_per_atom:.4f} Å³ per atom, {crystal.density:.3f} g/cm³",
        "prototype key": crystal.prototype_key,
    }
    if crystal.is_chiral:
        lines["handedness"] = HANDS[crystal.handedness]
    summary = Table.grid(padding=(0, 2))
    summary.add_column(style="dim", no_wrap=True)
    summary.add_column(overflow="fold")
    for name, value in {**lines, **(details or {})}.items():
        summary.add_row(name, Text(value))
    heading = f"[bold]{escape(crystal.formula)}[/bold]  {escape(title)}"
    return Panel(
        Group(summary, Text(), orbit_table(crystal)), title=heading, title_align="left", expand=False
    )


def orbit_table(crystal: Crystal) -> Table:
    """The orbits of a crystal: element, position, site symmetry, coordinates, free coordinates."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("orbit", "position", "site symmetry", "coordinates"):
        table.add_column(name)
    table.add_column("free coordinates", justify="left")
    for z, position, free in zip(crystal.atomic_numbers, crystal.positions, crystal.free_coords):
        values = "  ".join(f"{letter} = {x:.6f}" for letter, x in zip("uvw", free[: position.num_free]))
        texts = (
            element_symbol(int(z)),
            position.label,
            position.site_symmetry,
            coordinate_formula(position),
            values,
        )
        table.add_row(*(Text(text) for text in texts))
    return table


def _place(record: Record) -> str:
    """The record's id, and the file and row it came from where they say more."""
    file, row = record.provenance.file, record.provenance.row
    return f"{record.id} ({file})" if row in (0, "") else f"{record.id} ({file}, row {row})"


def _plain(value: Any) -> Any:
    """Nested lists with None for the numbers that JSON does not have (NaN: not stated)."""
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def _affine(coefficients: np.ndarray, letters: str, shift: float) -> str:
    terms = ""
    for coefficient, letter in zip(coefficients.tolist(), letters):
        if coefficient:
            size = "" if abs(coefficient) == 1 else _fraction(abs(coefficient))
            terms += f" {'-' if coefficient < 0 else '+'} {size}{letter}"
    if shift or not terms:
        terms += f" {'-' if shift < 0 else '+'} {_fraction(abs(shift))}"
    text = terms.strip().removeprefix("+ ")
    return f"-{text[2:]}" if text.startswith("- ") else text


def _fraction(value: float) -> str:
    """A multiple of 1/24 as a fraction; every coefficient of a Wyckoff position is one."""
    numerator, denominator = round(value * 24), 24
    divisor = int(np.gcd(numerator, denominator))
    numerator, denominator = numerator // divisor, denominator // divisor
    return str(numerator) if denominator == 1 else f"{numerator}/{denominator}"
