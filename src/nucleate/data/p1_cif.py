"""CIF text of a cell as it is: in P1, every atom a row, with labels, oxidation states, D and T, and moments."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nucleate.crystal.lattice_parameters import parameters_from_lattice
from nucleate.crystal.species import element_symbol
from nucleate.crystal.unit_cell import UnitCell
from nucleate.shapes import Float

_HYDROGEN_SYMBOLS = {2: "D", 3: "T"}


def p1_cif(cell: UnitCell, *, name: str) -> str:
    """CIF of all atoms in their order, coordinates with 12 digits, wrapped into [0, 1).

    CIF knows a lattice by lengths and angles only. A left-handed cell is therefore written with all three axes
    reversed, which gives the same crystal and not its mirror image. Moments that are numbers are written along
    c; they are written if every site has one.

    Args:
        cell: the atoms; of its site properties ``label``, ``oxidation_state``, ``mass_number`` (D and T) and
            ``magnetic_moment`` are written.
        name: what follows ``data_``.
    """
    sign = -1.0 if np.linalg.det(cell.lattice) < 0 else 1.0
    lattice = sign * cell.lattice
    symbols = _symbols(cell)
    states = np.asarray(cell.site_properties.get("oxidation_state", np.full(cell.num_atoms, np.nan)))
    types = [_type(symbol, float(state)) for symbol, state in zip(symbols, states)]
    labels = _labels(cell, symbols)
    block = "".join(c if "!" <= c <= "~" else "_" for c in name)[:70] or "crystal"
    lines = [f"data_{block}", "_symmetry_space_group_name_H-M    'P 1'", "_space_group_IT_number    1"]
    parameters = parameters_from_lattice(lattice)
    names = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
    lines += [f"_cell_{tag}    {value:.12f}" for tag, value in zip(names, parameters)]
    lines += ["", "loop_", "_space_group_symop_operation_xyz", "'x, y, z'"]
    charges = {kind: float(state) for kind, state in zip(types, states) if np.isfinite(state)}
    if charges:
        lines += ["", "loop_", "_atom_type_symbol", "_atom_type_oxidation_number"]
        lines += [f"{kind} {charge:g}" for kind, charge in charges.items()]
    items = ("label", "type_symbol", "fract_x", "fract_y", "fract_z", "occupancy")
    lines += ["", "loop_", *(f"_atom_site_{item}" for item in items)]
    for label, kind, site in zip(labels, types, (sign * cell.frac_coords).tolist()):
        lines.append(" ".join([label, kind, *(_wrapped(x) for x in site), "1"]))
    moments = _moments(cell, lattice)
    if moments is not None:
        lines += ["", "loop_", "_atom_site_moment.label"]
        lines += [f"_atom_site_moment.crystalaxis_{axis}" for axis in "xyz"]
        for label, moment in zip(labels, moments.tolist()):
            lines.append(" ".join([label, *(f"{x:.9f}" for x in moment)]))
    return "\n".join(lines) + "\n"


def _symbols(cell: UnitCell) -> list[str]:
    masses = np.asarray(cell.site_properties.get("mass_number", np.zeros(cell.num_atoms, dtype=np.int64)))
    return [
        _HYDROGEN_SYMBOLS.get(int(mass), "H") if number == 1 else element_symbol(int(number))
        for number, mass in zip(cell.atomic_numbers.tolist(), masses.tolist())
    ]


def _type(symbol: str, state: float) -> str:
    return f"{symbol}{abs(state):g}{'-' if state < 0 else '+'}" if np.isfinite(state) else symbol


def _labels(cell: UnitCell, symbols: Sequence[str]) -> list[str]:
    """Labels of the source where they tell the atoms apart and are one word of CIF, else symbol and number."""
    own = [str(label) for label in cell.site_properties.get("label", ())]
    if len(own) == len(set(own)) == cell.num_atoms and all(
        label.isascii() and label.isalnum() and label[0].isalpha() for label in own
    ):
        return own
    return [f"{symbol}{i + 1}" for i, symbol in enumerate(symbols)]


def _moments(cell: UnitCell, lattice: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "atoms 3"] | None:
    """Moments in μB along the unit vectors of the axes; None unless every site has one."""
    moments = np.asarray(cell.site_properties.get("magnetic_moment", np.nan))
    if moments.dtype.kind not in "iuf" or not np.isfinite(moments).all():
        return None
    if moments.ndim == 1:
        return moments[:, None] * np.array([0.0, 0.0, 1.0])
    return moments @ np.linalg.inv(lattice / np.linalg.norm(lattice, axis=1, keepdims=True))


def _wrapped(value: float) -> str:
    text = f"{value % 1.0:.12f}"
    return "0.000000000000" if text.startswith("1") else text
