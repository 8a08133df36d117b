"""An OPTIMADE structure as a unit cell, and what in it makes that impossible."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nucleate.crystal.species import parse_species
from nucleate.crystal.unit_cell import UnitCell
from nucleate.data.sources.dataset import unit_cell_from_arrays
from nucleate.errors import DisorderedStructureError, InvalidStructureError, ParseError

#: Structure features of the OPTIMADE specification, section 7.2.20, that no list of atoms can stand for.
_REFUSED_FEATURES = {
    "unknown_positions": "atoms whose positions are unknown",
    "implicit_atoms": "atoms that are in the formula but not among the sites",
    "site_attachments": "atoms attached to sites without positions of their own",
    "assemblies": "groups of sites that exclude each other",
}
_FULL = 1.0 - 1e-6


def unit_cell_from_optimade(attributes: Mapping[str, Any], *, name: str) -> UnitCell:
    """The unit cell of the attributes of an OPTIMADE structure.

    Raises:
        DisorderedStructureError: partial or mixed occupation, or assemblies; the sites are listed.
        InvalidStructureError: not periodic in three directions, unknown positions, no lattice.
        ParseError: attributes that the specification demands are missing or contradict each other.
    """
    lattice, positions = attributes.get("lattice_vectors"), attributes.get("cartesian_site_positions")
    labels, species = attributes.get("species_at_sites"), attributes.get("species")
    if attributes.get("dimension_types") not in (None, [1, 1, 1]):
        axes = sum(bool(flag) for flag in attributes["dimension_types"])
        raise InvalidStructureError(f"{name} is periodic in {axes} directions, a crystal in 3")
    for feature in attributes.get("structure_features") or ():
        if feature in _REFUSED_FEATURES:
            kind = DisorderedStructureError if feature == "assemblies" else InvalidStructureError
            raise kind(f"{name} has {_REFUSED_FEATURES[feature]} (structure feature {feature!r})")
    given = {
        "lattice_vectors": lattice,
        "cartesian_site_positions": positions,
        "species_at_sites": labels,
        "species": species,
    }
    missing = [key for key, value in given.items() if not isinstance(value, list) or not value]
    if missing:
        raise ParseError(f"{name} has no {', '.join(missing)}")
    assert isinstance(labels, list) and isinstance(species, list)  # noqa: PT018 - one condition, for the types
    assert lattice is not None and positions is not None  # noqa: PT018
    by_name = {entry["name"]: entry for entry in species if isinstance(entry, dict) and "name" in entry}
    unknown = sorted({str(label) for label in labels if label not in by_name})
    if unknown:
        raise ParseError(f"{name} has sites of species {', '.join(unknown)}, which it does not define")
    _refuse_disorder(labels, by_name, name)
    numbers, masses = [], []
    for label in labels:
        number, mass = _element(by_name[label])
        numbers.append(number)
        masses.append(mass)
    cell = unit_cell_from_arrays(numbers, lattice, cart=positions, name=name)
    if not any(masses):
        return cell
    return UnitCell(cell.lattice, cell.frac_coords, cell.atomic_numbers, {"mass_number": np.array(masses)})


def _refuse_disorder(labels: list[Any], by_name: Mapping[str, Any], name: str) -> None:
    mixed = {label for label, entry in by_name.items() if not _is_one_element(entry)}
    sites = [f"{label} (site {index + 1})" for index, label in enumerate(labels) if label in mixed]
    if sites:
        more = f" and {len(sites) - 5} more" if len(sites) > 5 else ""
        raise DisorderedStructureError.at(name, f"{', '.join(sites[:5])}{more}")
    attached = [label for label in labels if by_name[label].get("attached")]
    if attached:
        raise InvalidStructureError(
            f"{name} has atoms attached to {attached[0]} without positions of their own"
        )


def _is_one_element(entry: Mapping[str, Any]) -> bool:
    symbols, concentration = entry.get("chemical_symbols"), entry.get("concentration")
    if not isinstance(symbols, list) or not isinstance(concentration, list):
        return False
    present = [
        (s, c) for s, c in zip(symbols, concentration) if isinstance(c, (int, float)) and c > 1.0 - _FULL
    ]
    return len(symbols) == len(concentration) and len(present) == 1 and present[0][1] >= _FULL


def _element(entry: Mapping[str, Any]) -> tuple[int, int]:
    """Atomic number and mass number (0 where natural; OPTIMADE writes deuterium as H with its mass)."""
    symbol = next(
        symbol for symbol, share in zip(entry["chemical_symbols"], entry["concentration"]) if share >= _FULL
    )
    species = parse_species(str(symbol))
    mass = entry.get("mass")
    mass = mass[0] if isinstance(mass, list) and len(mass) == 1 else mass
    if species.atomic_number == 1 and isinstance(mass, (int, float)) and mass > 1.5:
        return 1, round(mass)
    return species.atomic_number, species.mass_number
