"""CIF text as unit cells: every atom of the cell, with its symmetry applied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nucleate.crystal.cell_checks import check_lattice, check_num_atoms, checked_unit_cell
from nucleate.crystal.cif_block import CifTags, read_blocks
from nucleate.crystal.cif_moments import image_moments, read_moments
from nucleate.crystal.cif_sites import CifSites, read_sites
from nucleate.crystal.cif_symmetry import check_metric, read_symmetry
from nucleate.crystal.cif_writer import CifOrbit, crystal_to_cif, write_cif
from nucleate.crystal.lattice_parameters import lattice_from_parameters
from nucleate.crystal.operation import OperationList
from nucleate.crystal.site_images import site_images
from nucleate.crystal.unit_cell import UnitCell
from nucleate.errors import InvalidStructureError, ParseError

__all__ = ["CifBlock", "CifOrbit", "cif_blocks", "crystal_to_cif", "unit_cell_from_cif", "write_cif"]

_LENGTHS = tuple((f"_cell_length_{axis}", f"_cell.length_{axis}") for axis in "abc")
_ANGLES = tuple((f"_cell_angle_{angle}", f"_cell.angle_{angle}") for angle in ("alpha", "beta", "gamma"))


@dataclass(frozen=True, eq=False)
class CifBlock:
    """One data block of a CIF, not yet read further than its tags.

    Attributes:
        name: what follows ``data_``.
        has_atoms: the block lists atom sites.
        tags: its values.
    """

    name: str
    has_atoms: bool
    tags: CifTags

    def unit_cell(self, *, max_atoms: int = 1000) -> UnitCell:
        """Unit cell with all atoms of the block; see `unit_cell_from_cif`."""
        return _read_unit_cell(self.tags, max_atoms=max_atoms)


def cif_blocks(text: str, *, name: str = "CIF") -> list[CifBlock]:
    """All data blocks of a CIF in order, those without atoms included.

    Raises:
        ParseError: the text is not a CIF.
    """
    return [
        CifBlock(tags.block.name.strip(), _has_atoms(tags), tags) for tags in read_blocks(text, name=name)
    ]


def unit_cell_from_cif(text: str, *, name: str = "CIF", max_atoms: int = 1000) -> UnitCell:
    """Unit cell of the first data block with atoms.

    Operations come from the listed triplets, otherwise from the Hall symbol, the Hermann-Mauguin symbol or
    the number. A site near a special position is moved exactly onto it (`site_images` states the rule), so
    that rounded thirds give one atom and not three. Of a block whose only operation is x,y,z the coordinates
    are kept as written; otherwise the images lie in [0, 1). Lattice frame: c along z, a in the xz plane.

    Site properties: ``label``; where given, ``oxidation_state`` (NaN for sites without one), ``mass_number``
    (0 for natural isotopes) and ``magnetic_moment`` (Cartesian, μB, from a magnetic CIF).

    Args:
        text: the whole file.
        name: what to call it in an error.
        max_atoms: largest number of atoms accepted, checked before the symmetry is applied and while it is.

    Raises:
        ParseError: not a CIF, no symmetry, or numbers and operations that do not parse.
        DisorderedStructureError: partial occupancy or mixed sites.
        InvalidStructureError: no crystal, or cell, symmetry and sites contradict each other.
        StructureTooLargeError: more than ``max_atoms``.
    """
    blocks = read_blocks(text, name=name)
    chosen = next((tags for tags in blocks if _has_atoms(tags)), blocks[0])
    return _read_unit_cell(chosen, max_atoms=max_atoms)


def _has_atoms(tags: CifTags) -> bool:
    return bool(tags.block.find_values("_atom_site_fract_x")) or bool(
        tags.block.find_values("_atom_site.fract_x")
    )


def _read_unit_cell(tags: CifTags, *, max_atoms: int) -> UnitCell:
    where = tags.where
    sites = read_sites(tags, max_atoms=max_atoms)
    parameters = [tags.number(*names) for names in (*_LENGTHS, *_ANGLES)]
    lattice = lattice_from_parameters(parameters, name=where)
    symmetry = read_symmetry(tags)
    moments = read_moments(tags, sites.labels)
    operations = symmetry.operations
    if moments is not None and not symmetry.is_magnetic and len(operations) > 1:
        raise ParseError(f"{where} gives magnetic moments without _space_group_symop_magn_operation.xyz")
    if len(operations) == 1:
        return _assemble(
            sites,
            lattice,
            frac_coords=sites.frac_coords,
            site_of_atom=None,
            moments=None if moments is None else moments / np.linalg.norm(lattice, axis=1) @ lattice,
            where=where,
            max_atoms=max_atoms,
        )
    check_lattice(lattice, name=where)
    check_metric(lattice, operations, where=where)
    return _expand(sites, lattice, operations=operations, moments=moments, where=where, max_atoms=max_atoms)


def _expand(
    sites: CifSites,
    lattice: np.ndarray,
    *,
    operations: OperationList,
    moments: np.ndarray | None,
    where: str,
    max_atoms: int,
) -> UnitCell:
    coords, site_of_atom, image_vectors, num_atoms = [], [], [], 0
    if not np.abs(sites.frac_coords).max() <= 1e6:
        row = int(np.abs(sites.frac_coords).max(axis=1).argmax())
        raise InvalidStructureError(
            f"{where}: site {sites.labels[row]} has fractional coordinates {sites.frac_coords[row].tolist()}"
        )
    rounding = sites.rounding()
    for row, label in enumerate(sites.labels):
        try:
            images = site_images(sites.frac_coords[row], operations, lattice=lattice, rounding=rounding[row])
        except InvalidStructureError as error:
            raise InvalidStructureError(f"{where}: site {label}: {error}") from error
        num_atoms += len(images.frac_coords)
        check_num_atoms(num_atoms, max_atoms=max_atoms, name=where)
        coords.append(images.frac_coords)
        site_of_atom.append(np.full(len(images.frac_coords), row))
        if moments is not None:
            site = f"{where}: site {label}"
            image_vectors.append(
                image_moments(moments[row], images, operations=operations, lattice=lattice, site=site)
            )
    return _assemble(
        sites,
        lattice,
        frac_coords=np.concatenate(coords),
        site_of_atom=np.concatenate(site_of_atom),
        moments=np.concatenate(image_vectors) if moments is not None else None,
        where=where,
        max_atoms=max_atoms,
    )


def _assemble(
    sites: CifSites,
    lattice: np.ndarray,
    *,
    frac_coords: np.ndarray,
    site_of_atom: np.ndarray | None,
    moments: np.ndarray | None,
    where: str,
    max_atoms: int,
) -> UnitCell:
    numbers = np.array([species.atomic_number for species in sites.species], dtype=np.int64)
    properties: dict[str, Any] = {"label": np.array(sites.labels)}
    if any(species.oxidation_state is not None for species in sites.species):
        properties["oxidation_state"] = np.array(
            [np.nan if s.oxidation_state is None else s.oxidation_state for s in sites.species]
        )
    if any(species.mass_number for species in sites.species):
        properties["mass_number"] = np.array(
            [species.mass_number for species in sites.species], dtype=np.int64
        )
    if site_of_atom is not None:
        numbers = numbers[site_of_atom]
        properties = {key: values[site_of_atom] for key, values in properties.items()}
    if moments is not None:
        properties["magnetic_moment"] = moments
    return checked_unit_cell(
        lattice,
        frac_coords,
        atomic_numbers=numbers,
        site_properties=properties,
        name=where,
        max_atoms=max_atoms,
        site_names=properties["label"],
    )
