"""pymatgen structures as unit cells and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nucleate.crystal.cell_checks import check_num_atoms, checked_unit_cell
from nucleate.crystal.species import Species, element_symbol, parse_species
from nucleate.crystal.unit_cell import UnitCell
from nucleate.errors import DisorderedStructureError, InvalidStructureError

if TYPE_CHECKING:
    from pymatgen.core import Structure

_PYMATGEN_NAMES = {"magnetic_moment": "magmom"}
_OWN_NAMES = {theirs: ours for ours, theirs in _PYMATGEN_NAMES.items()}
_HYDROGEN_SYMBOLS = {2: "D", 3: "T"}


def unit_cell_from_pymatgen(
    structure: Structure, *, name: str = "the structure", max_atoms: int = 1000
) -> UnitCell:
    """Unit cell of a pymatgen Structure, in its own frame.

    Oxidation states and spins of its species become the site properties ``oxidation_state`` and ``spin`` (NaN
    for sites without one), D and T become hydrogen with ``mass_number``, ``magmom`` becomes
    ``magnetic_moment``, labels that were given become ``label``; every other site property is carried under
    its name.

    Raises:
        DisorderedStructureError: a site with several species or partial occupancy; lists them.
        InvalidStructureError: dummy species, not periodic in three directions, or no crystal.
        StructureTooLargeError: more than ``max_atoms``.
    """
    sites = structure.sites
    check_num_atoms(len(sites), max_atoms=max_atoms, name=name)
    if not all(structure.lattice.pbc):
        raise InvalidStructureError(
            f"{name} is periodic along {structure.lattice.pbc} only, must be along a, b and c"
        )
    known: dict[int, tuple[Species, float | None]] = {}
    read, labels, has_properties = [], [], False
    for site in sites:
        composition = site.species
        if len(composition) != 1 or abs(composition.num_atoms - 1) > 1e-8:
            raise _disordered(sites, name)
        element = next(iter(composition))
        key = id(element)
        if key not in known:
            known[key] = _read_species(element, name=name)
        read.append(known[key])
        labels.append(
            getattr(site, "_label", None)
        )  # the public label is built anew for each site that has none
        has_properties = has_properties or bool(site.properties)
    properties: dict[str, Any] = {}
    if has_properties:
        for key_name, values in structure.site_properties.items():
            own_name = _OWN_NAMES.get(key_name, key_name)
            properties[own_name] = (
                moment_array(values) if own_name == "magnetic_moment" else site_array(values)
            )
    species = [one for one, _ in read]
    if any(one.oxidation_state is not None for one, _ in known.values()):
        properties["oxidation_state"] = np.array(
            [np.nan if one.oxidation_state is None else one.oxidation_state for one in species]
        )
    if any(one.mass_number for one, _ in known.values()):
        properties["mass_number"] = np.array([one.mass_number for one in species], dtype=np.int64)
    if any(spin is not None for _, spin in known.values()):
        properties["spin"] = np.array([np.nan if spin is None else float(spin) for _, spin in read])
    if any(label is not None for label in labels):
        properties["label"] = np.array(structure.labels)
    return checked_unit_cell(
        np.array(structure.lattice.matrix, dtype=np.float64),
        np.array(structure.frac_coords, dtype=np.float64),
        atomic_numbers=np.array([one.atomic_number for one in species], dtype=np.int64),
        site_properties=properties,
        name=name,
        max_atoms=max_atoms,
    )


def unit_cell_to_pymatgen(cell: UnitCell) -> Structure:
    """pymatgen Structure of a unit cell, in the same frame; the inverse of `unit_cell_from_pymatgen`."""
    from pymatgen.core import Element, Lattice, Structure  # noqa: PLC0415  heavy
    from pymatgen.core import Species as PymatgenSpecies  # noqa: PLC0415  heavy

    properties = dict(cell.site_properties)
    oxidation_states = properties.pop("oxidation_state", np.full(cell.num_atoms, np.nan))
    spins = properties.pop("spin", np.full(cell.num_atoms, np.nan))
    mass_numbers = properties.get("mass_number", np.zeros(cell.num_atoms, dtype=np.int64))
    if not any(
        mass and (number, mass) not in ((1, 2), (1, 3))
        for number, mass in zip(cell.atomic_numbers, mass_numbers)
    ):
        properties.pop("mass_number", None)  # D and T say it by their symbol
    labels = properties.pop("label", None)
    species: list[Any] = []
    for number, mass, oxidation_state, spin in zip(
        cell.atomic_numbers, mass_numbers, oxidation_states, spins
    ):
        symbol = element_symbol(int(number))
        if number == 1:
            symbol = _HYDROGEN_SYMBOLS.get(int(mass), symbol)
        charge = None if np.isnan(oxidation_state) else float(oxidation_state)
        if charge is None and np.isnan(spin):
            species.append(Element(symbol))
        else:
            species.append(PymatgenSpecies(symbol, charge, spin=None if np.isnan(spin) else float(spin)))
    return Structure(
        Lattice(cell.lattice),
        species,
        cell.frac_coords,
        site_properties={
            _PYMATGEN_NAMES.get(key, key): np.asarray(v).tolist() for key, v in properties.items()
        },
        labels=None if labels is None else [str(label) for label in labels],
    )


def site_array(values: Sequence[Any]) -> np.ndarray:
    """Per-site values as an array, sites first: numeric or text if they are, otherwise of objects."""
    try:
        array = np.asarray(values)
    except ValueError:  # ragged
        array = np.empty(0, dtype=object)
    if array.dtype != object and len(array) == len(values):
        return array
    objects = np.empty(len(values), dtype=object)
    objects[:] = list(values)
    return objects


def moment_array(values: Sequence[Any]) -> np.ndarray:
    """Magnetic moments as one number or one Cartesian vector per site, NaN where a site has none.

    Raises:
        InvalidStructureError: moments that are neither numbers nor vectors.
    """
    plain = [np.asarray(getattr(value, "global_moment", value), dtype=object) for value in values]
    is_vector = any(value.shape == (3,) for value in plain)
    moments = np.full((len(values), 3) if is_vector else (len(values),), np.nan)
    for index, value in enumerate(plain):
        if value.shape == () and value.item() is None:
            continue
        try:
            number = value.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise InvalidStructureError(
                f"magnetic moment {values[index]!r} of site {index + 1} is no number"
            ) from error
        if number.shape not in ((), (3,)):
            raise InvalidStructureError(f"magnetic moment {values[index]!r} of site {index + 1} is no vector")
        # A bare number beside vectors is a moment along z, pymatgen's default axis.
        moments[index] = (0.0, 0.0, float(number)) if is_vector and number.shape == () else number
    return moments


def _read_species(element: Any, *, name: str) -> tuple[Species, float | None]:
    # The symbol of D and T is H; their name tells them apart.
    if type(element).__name__ == "Element":
        return parse_species(element.name), None
    if any(base.__name__ == "DummySpecies" for base in type(element).__mro__):
        raise InvalidStructureError(f"{name} contains the dummy species {element}, which is not an element")
    species = parse_species(element.element.name)
    charge = element.oxi_state
    charge = None if charge is None else float(charge)
    spin = element.spin
    return Species(species.atomic_number, species.mass_number, charge), None if spin is None else float(spin)


def _disordered(sites: Sequence[Any], name: str) -> DisorderedStructureError:
    listed = []
    for index, site in enumerate(sites):
        if len(site.species) != 1 or abs(site.species.num_atoms - 1) > 1e-8:
            listed.append(f"{site.label} (site {index + 1}: {site.species_string})")
    more = f" and {len(listed) - 8} more" if len(listed) > 8 else ""
    return DisorderedStructureError.at(
        name,
        f"{len(listed)} partially occupied or mixed site{'s' * (len(listed) > 1)}: "
        f"{', '.join(listed[:8])}{more}",
    )
