"""ASE atoms as unit cells and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nucleate.crystal.cell_checks import check_lattice, check_num_atoms, checked_unit_cell
from nucleate.crystal.unit_cell import UnitCell
from nucleate.errors import DisorderedStructureError, InvalidStructureError
from nucleate.shapes import Float, Int

if TYPE_CHECKING:
    from ase import Atoms

_ASE_NAMES = {"magnetic_moment": "initial_magmoms", "oxidation_state": "oxi_states", "label": "labels"}
_OWN_NAMES = {theirs: ours for ours, theirs in _ASE_NAMES.items()}
_RESULT_NAMES = {
    "forces": "forces",
    "magmoms": "final_magmom",
    "charges": "final_charge",
}  # as pymatgen's adaptor has it
_ISOTOPE_MASSES = {
    (1, 2): 2.01410177812,
    (1, 3): 3.0160492779,
}  # u, AME2020; others deviate from A by less than 0.1


def unit_cell_from_ase(atoms: Atoms, *, name: str = "the atoms", max_atoms: int = 1000) -> UnitCell:
    """Unit cell of ASE atoms, in their own frame.

    Initial magnetic moments become the site property ``magnetic_moment``, the array ``oxi_states`` becomes
    ``oxidation_state``, masses of single isotopes become ``mass_number``, FixAtoms and FixCartesian become
    ``selective_dynamics`` (True is free, as in VASP); forces, moments and charges of an up-to-date calculator
    become ``forces``, ``final_magmom`` and ``final_charge``; every other array is carried under its name.

    Raises:
        InvalidStructureError: not periodic in three directions, dummy atoms (X), or no crystal.
        DisorderedStructureError: ``atoms.info['occupancy']`` holds partial occupancies.
        StructureTooLargeError: more than ``max_atoms``.
    """
    num_atoms = len(atoms)
    check_num_atoms(num_atoms, max_atoms=max_atoms, name=name)
    lattice = np.array(atoms.cell, dtype=np.float64)
    if not lattice.any():
        raise InvalidStructureError(f"{name} has no cell: a molecule, not a crystal")
    if not atoms.pbc.all():
        raise InvalidStructureError(
            f"{name} is periodic along {atoms.pbc.tolist()} only; set atoms.pbc = True if it is a crystal"
        )
    reciprocal = check_lattice(lattice, name=name)
    _refuse_partial_occupancy(atoms, name=name)
    numbers = np.array(atoms.numbers, dtype=np.int64)
    properties: dict[str, Any] = {}
    for key, values in atoms.arrays.items():
        if key == "masses":
            mass_numbers = _mass_numbers(numbers, values)
            if mass_numbers is None:
                properties["masses"] = values.copy()
            elif mass_numbers.any():
                properties["mass_number"] = mass_numbers
        elif key not in ("numbers", "positions"):
            properties[_OWN_NAMES.get(key, key)] = values.copy()
    if atoms.constraints:
        properties["selective_dynamics"] = _free_directions(atoms)
    calculator = atoms.calc
    if calculator is not None and getattr(calculator, "results", None) and not calculator.check_state(atoms):
        for theirs, ours in _RESULT_NAMES.items():
            if (result := calculator.results.get(theirs)) is not None and len(
                np.atleast_1d(result)
            ) == num_atoms:
                properties[ours] = np.array(result)
    with np.errstate(
        invalid="ignore", over="ignore"
    ):  # positions that are not finite are named by the check below
        frac_coords = np.asarray(atoms.positions, dtype=np.float64) @ reciprocal
    return checked_unit_cell(
        lattice,
        frac_coords,
        atomic_numbers=numbers,
        site_properties=properties,
        name=name,
        max_atoms=max_atoms,
    )


def unit_cell_to_ase(cell: UnitCell) -> Atoms:
    """ASE atoms of a unit cell, in the same frame; the inverse of `unit_cell_from_ase`."""
    from ase import Atoms  # noqa: PLC0415  heavy
    from ase.calculators.singlepoint import SinglePointCalculator  # noqa: PLC0415  heavy
    from ase.constraints import FixAtoms, FixCartesian  # noqa: PLC0415  heavy
    from ase.data import atomic_masses  # noqa: PLC0415  heavy

    atoms = Atoms(numbers=cell.atomic_numbers, positions=cell.cart_coords, cell=cell.lattice, pbc=True)
    results = {}
    for key, values in cell.site_properties.items():
        array = np.asarray(values)
        theirs = next((theirs for theirs, ours in _RESULT_NAMES.items() if ours == key), None)
        if key == "mass_number":
            pairs = list(zip(cell.atomic_numbers.tolist(), array.tolist()))
            atoms.set_masses(
                [_ISOTOPE_MASSES.get(p, float(p[1])) if p[1] else atomic_masses[p[0]] for p in pairs]
            )
        elif key == "selective_dynamics":
            fixed = ~array.astype(bool)
            whole = np.flatnonzero(fixed.all(axis=1))
            partly = np.flatnonzero(fixed.any(axis=1) & ~fixed.all(axis=1))
            constraints: list[Any] = [FixAtoms(indices=whole)] if len(whole) else []
            atoms.set_constraint(constraints + [FixCartesian(int(i), mask=fixed[i]) for i in partly])
        elif theirs is not None:
            results[theirs] = array
        else:
            atoms.set_array(_ASE_NAMES.get(key, key), array)
    if results:
        atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def _refuse_partial_occupancy(atoms: Atoms, *, name: str) -> None:
    """ASE keeps disorder read from a CIF beside the atoms, one entry per kind of site."""
    occupancy = atoms.info.get("occupancy")
    if not isinstance(occupancy, dict):
        return
    mixed = {
        kind: shares
        for kind, shares in occupancy.items()
        if isinstance(shares, dict)
        and (len(shares) > 1 or any(abs(share - 1) > 1e-3 for share in shares.values()))
    }
    if mixed:
        listed = ", ".join(f"kind {kind}: {shares}" for kind, shares in list(mixed.items())[:8])
        raise DisorderedStructureError.at(name, f"partial occupancies in atoms.info: {listed}")


def _mass_numbers(
    numbers: Int[np.ndarray, "sites"], masses: Float[np.ndarray, "sites"]
) -> Int[np.ndarray, "sites"] | None:
    """Mass number of each site, 0 for natural masses; None if a mass is neither natural nor a nuclide's."""
    from ase.data import atomic_masses  # noqa: PLC0415  heavy, and loaded already where there are atoms

    mass_numbers = np.zeros(len(numbers), dtype=np.int64)
    for index, (number, mass) in enumerate(zip(numbers.tolist(), masses.tolist())):
        if not (1 <= number < len(atomic_masses) and np.isfinite(mass)):
            return None
        if abs(mass - atomic_masses[number]) < 0.02:
            continue
        nearest = round(mass)
        if abs(mass - nearest) > 0.1 or not number <= nearest <= 3 * number + 4:
            return None
        mass_numbers[index] = nearest
    return mass_numbers


def _free_directions(atoms: Atoms) -> np.ndarray:
    free = np.ones((len(atoms), 3), dtype=bool)
    for constraint in atoms.constraints:
        if type(constraint).__name__ == "FixAtoms":
            free[constraint.get_indices()] = False
        elif type(constraint).__name__ == "FixCartesian":
            free[constraint.get_indices()] &= ~np.asarray(constraint.mask, dtype=bool)
    return free
