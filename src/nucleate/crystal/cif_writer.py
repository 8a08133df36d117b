"""CIF text of a crystal with its symmetry: operations, Wyckoff letters, multiplicities, one row per orbit."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nucleate.crystal.lattice_parameters import lattice_from_parameters, parameters_from_lattice
from nucleate.crystal.operation import format_operation
from nucleate.crystal.species import element_symbol
from nucleate.errors import InvalidStructureError
from nucleate.shapes import Float, Int

if TYPE_CHECKING:
    from nucleate.crystal.crystal import Crystal

_SITE_ITEMS = (
    "label",
    "type_symbol",
    "symmetry_multiplicity",
    "Wyckoff_symbol",
    "fract_x",
    "fract_y",
    "fract_z",
    "occupancy",
)


@dataclass(frozen=True)
class CifOrbit:
    """One row of the atom site loop.

    Attributes:
        label: unique in the block, e.g. ``Fe1``.
        atomic_number: element.
        wyckoff_letter: ``a`` ... ``z``, ``A`` for the general position of Pmmm.
        multiplicity: atoms of the orbit in the conventional cell.
        frac_coords: representative, on its position.
        oxidation_state: written if given.
    """

    label: str
    atomic_number: int
    wyckoff_letter: str
    multiplicity: int
    frac_coords: tuple[float, float, float]
    oxidation_state: float | None = None


def write_cif(
    cell_parameters: Sequence[float],
    orbits: Sequence[CifOrbit],
    *,
    space_group_number: int,
    rotations: Int[np.ndarray, "operations 3 3"],
    translations: Float[np.ndarray, "operations 3"],
    hermann_mauguin: str | None = None,
    hall: str | None = None,
    block_name: str | None = None,
    comments: Mapping[str, object] | None = None,
) -> str:
    """CIF of a crystal in the standard setting: unique axis b, hexagonal axes, origin choice 2.

    Coordinates are wrapped into [0, 1) and written with 9 digits, thirds as 0.333333333, so that every reader
    finds a special position again. Rows whose orbits do not fill the formula are an error of the caller; the
    multiplicities are written as given.

    Args:
        cell_parameters: a, b, c in Å, alpha, beta, gamma in degrees.
        orbits: one per row.
        space_group_number: 1 to 230.
        rotations: W of all operations of the conventional cell, centring included.
        translations: their t.
        hermann_mauguin: extended symbol such as ``F d -3 m :2``; looked up if not given.
        hall: Hall symbol of this setting; looked up if not given.
        block_name: what follows ``data_``; the formula if not given.
        comments: key and value of each comment line at the top.

    Raises:
        InvalidStructureError: no orbits, or impossible cell parameters.
    """
    if not orbits:
        raise InvalidStructureError("a CIF needs at least one orbit")
    lattice = lattice_from_parameters(cell_parameters)
    if hermann_mauguin is None or hall is None:
        standard_name, standard_hall = standard_symbols(space_group_number)
        hermann_mauguin = hermann_mauguin if hermann_mauguin is not None else standard_name
        hall = hall if hall is not None else standard_hall
    counts: dict[str, int] = {}
    for orbit in orbits:
        symbol = element_symbol(orbit.atomic_number)
        counts[symbol] = counts.get(symbol, 0) + orbit.multiplicity
    num_units = math.gcd(*counts.values())
    reduced = {symbol: count // num_units for symbol, count in counts.items()}
    terms = [f"{symbol}{count if count > 1 else ''}" for symbol, count in _hill_order(reduced)]
    structural = "".join(terms)
    lines = [f"# {_plain(key)}: {_plain(value)}" for key, value in (comments or {}).items()]
    lines.append(f"data_{_block_name(block_name if block_name is not None else structural)}")
    for tag, value in zip(("a", "b", "c"), cell_parameters[:3]):
        lines.append(f"_cell_length_{tag}    {value:.9f}")
    for tag, value in zip(("alpha", "beta", "gamma"), cell_parameters[3:]):
        lines.append(f"_cell_angle_{tag}    {value:.9f}")
    lines += [
        f"_cell_volume    {float(np.linalg.det(lattice)):.9f}",
        f"_cell_formula_units_Z    {num_units}",
        f"_chemical_formula_structural    {structural}",
        f"_chemical_formula_sum    '{' '.join(terms)}'",
        f"_symmetry_space_group_name_H-M    '{hermann_mauguin}'",
        f"_space_group_name_H-M_alt    '{hermann_mauguin}'",
        f"_space_group_name_Hall    '{hall}'",
        f"_space_group_IT_number    {space_group_number}",
        f"_symmetry_Int_Tables_number    {space_group_number}",
        "",
        "loop_",
        "_space_group_symop_id",
        "_space_group_symop_operation_xyz",
    ]
    for index, (rotation, translation) in enumerate(zip(rotations, translations), start=1):
        lines.append(f"{index} '{format_operation(rotation, translation)}'")
    lines += _oxidation_loop(orbits)
    lines += ["", "loop_"]
    lines += [f"_atom_site_{item}" for item in _SITE_ITEMS]
    for orbit in orbits:
        x, y, z = (_wrapped(value) for value in orbit.frac_coords)
        lines.append(
            f"{_plain(orbit.label).replace(' ', '_'):<6} {_type_symbol(orbit):<5} {orbit.multiplicity:>3} "
            f"{orbit.wyckoff_letter} {x} {y} {z} 1"
        )
    return "\n".join(lines) + "\n"


def crystal_to_cif(
    crystal: Crystal, *, name: str | None = None, comments: Mapping[str, object] | None = None
) -> str:
    """CIF of a crystal: its conventional cell, all operations, one row per orbit.

    Args:
        crystal: the asymmetric unit.
        name: what follows ``data_``; the formula if not given.
        comments: key and value of each comment line at the top.
    """
    group = crystal.group
    rotations, translations = group.all_operations()
    seen: dict[int, int] = {}
    orbits = []
    for number, letter, multiplicity, site in zip(
        crystal.atomic_numbers.tolist(),
        crystal.wyckoff_letters,
        crystal.multiplicities.tolist(),
        crystal.representatives.tolist(),
    ):
        seen[number] = seen.get(number, 0) + 1
        label = f"{element_symbol(number)}{seen[number]}"
        orbits.append(CifOrbit(label, number, letter, multiplicity, (site[0], site[1], site[2])))
    return write_cif(
        parameters_from_lattice(crystal.lattice),
        orbits,
        space_group_number=crystal.space_group_number,
        rotations=rotations,
        translations=translations,
        block_name=name if name is not None else crystal.formula,
        comments=comments,
    )


def standard_symbols(space_group_number: int) -> tuple[str, str]:
    """Extended Hermann-Mauguin symbol and Hall symbol of a group in its standard setting, from gemmi.

    gemmi's reference setting has the same operations as moyopy's standard one for all 230 groups.
    """
    import gemmi  # noqa: PLC0415  foreign formats load late

    if not 1 <= space_group_number <= 230:
        raise InvalidStructureError(f"space group number {space_group_number} is outside 1..230")
    group = gemmi.get_spacegroup_reference_setting(space_group_number)
    return (f"{group.hm} :{group.ext}" if group.ext in tuple("12HR") else group.hm), group.hall


def _hill_order(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Elements with counts, carbon and hydrogen first if there is carbon, the others by alphabet."""
    first = ("C", "H") if "C" in counts else ()
    return sorted(counts.items(), key=lambda item: (first.index(item[0]) if item[0] in first else 2, item[0]))


def _oxidation_loop(orbits: Sequence[CifOrbit]) -> list[str]:
    states = {
        _type_symbol(orbit): orbit.oxidation_state for orbit in orbits if orbit.oxidation_state is not None
    }
    if not states:
        return []
    rows = [f"{symbol} {state:g}" for symbol, state in states.items()]
    return ["", "loop_", "_atom_type_symbol", "_atom_type_oxidation_number", *rows]


def _type_symbol(orbit: CifOrbit) -> str:
    symbol = element_symbol(orbit.atomic_number)
    if orbit.oxidation_state is None:
        return symbol
    return f"{symbol}{abs(orbit.oxidation_state):g}{'-' if orbit.oxidation_state < 0 else '+'}"


def _wrapped(value: float) -> str:
    text = f"{value % 1.0:.9f}"
    return "0.000000000" if text.startswith("1") else text


def _plain(value: object) -> str:
    """One line of printable text."""
    return " ".join(str(value).split())


def _block_name(text: str) -> str:
    """Data block name: printable ASCII without spaces, at most 75 characters."""
    return re.sub(r"[^!-~]+", "_", text.strip())[:70] or "crystal"
