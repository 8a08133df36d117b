"""From a foreign structure to its exact asymmetric unit: analyse, project, and keep the way back."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache

import moyopy
import numpy as np

from nucleate.crystal.cell_checks import checked_unit_cell
from nucleate.crystal.crystal import Crystal
from nucleate.crystal.encoded import EncodedStructure
from nucleate.crystal.lattice import LatticeFit
from nucleate.crystal.ragged import segment_argmin, segment_positions
from nucleate.crystal.setting import StandardSetting, descend
from nucleate.crystal.space_group import space_group
from nucleate.crystal.tables import group_arrays
from nucleate.crystal.unit_cell import UnitCell
from nucleate.errors import SymmetryError
from nucleate.shapes import Float, Int

STANDARD_SETTING = moyopy.Setting.standard()
PSEUDO_SYMMETRY_TOLERANCES = (0.1, 0.01, 1e-3)


@cache
def _quiet_about_supercells() -> None:
    # moyopy warns about the operations of every supercell; encoding does not read them.
    logging.getLogger("moyo").setLevel(logging.ERROR)


def analyse(unit_cell: UnitCell, *, symprec: float) -> moyopy.MoyoDataset:
    """moyopy's symmetry dataset of a cell in the standard setting.

    Raises:
        SymmetryError: the search failed.
    """
    _quiet_about_supercells()
    cell = moyopy.Cell(
        unit_cell.lattice.tolist(), unit_cell.frac_coords.tolist(), unit_cell.atomic_numbers.tolist()
    )
    try:
        return moyopy.MoyoDataset(cell, symprec=symprec, setting=STANDARD_SETTING, rotate_basis=False)
    except ValueError as error:
        raise SymmetryError(
            f"the symmetry search at symprec {symprec:g} Å failed ({error}); try another symprec"
        ) from error


def pseudo_symmetry(
    unit_cell: UnitCell, *, tolerances: tuple[float, ...] = PSEUDO_SYMMETRY_TOLERANCES
) -> dict[float, int | None]:
    """Space group number found at each tolerance in Å; None where the search fails."""
    found: dict[float, int | None] = {}
    for symprec in tolerances:
        try:
            found[symprec] = analyse(unit_cell, symprec=symprec).number
        except SymmetryError:
            found[symprec] = None
    return found


def encode(
    unit_cell: UnitCell,
    *,
    symprec: float = 0.01,
    max_atoms: int = 1000,
    subgroup: int | None = None,
    max_displacement: float | None = None,
    max_strain: float = 0.05,
) -> EncodedStructure:
    """The exact asymmetric unit of a unit cell, with the way back.

    moyopy finds the group and the transformation to its standard setting. The lattice is projected onto the
    lattice subspace (group average of its logarithm), each orbit onto its Wyckoff position: all atoms of an
    orbit are pulled back to the representative by the inverse of their operation, averaged, and the mean is
    projected orthogonally in the Cartesian metric,

        u = (B^T G B)^-1 B^T G (y - c),   G = A A^T.

    Args:
        unit_cell: any cell, supercells and left-handed ones included.
        symprec: tolerance of the symmetry search in Å.
        max_atoms: refuse larger cells.
        subgroup: number of a translationengleiche subgroup (1 for P1) to descend to instead of the full
            group.
        max_displacement: refuse if an atom moves further than this in Å; 10 ``symprec`` unless given.
        max_strain: refuse if the lattice is strained more than this (dimensionless).

    Raises:
        InvalidStructureError: NaN, no volume, overlapping atoms.
        StructureTooLargeError: more than ``max_atoms`` atoms.
        SymmetryError: the search failed, or the ideal crystal is too far from the input.
    """
    unit_cell = checked_unit_cell(
        unit_cell.lattice,
        unit_cell.frac_coords,
        atomic_numbers=unit_cell.atomic_numbers,
        site_properties=unit_cell.site_properties,
        name="the structure",
        max_atoms=max_atoms,
    )
    dataset = analyse(unit_cell, symprec=symprec)
    if subgroup is None or subgroup == dataset.number:
        setting = StandardSetting.from_dataset(dataset)
    else:
        setting = descend(unit_cell, dataset, subgroup)
    return project(
        unit_cell,
        setting,
        symprec=symprec,
        max_displacement=10 * symprec if max_displacement is None else max_displacement,
        max_strain=max_strain,
    )


def project(
    unit_cell: UnitCell,
    setting: StandardSetting,
    *,
    symprec: float,
    max_displacement: float,
    max_strain: float,
) -> EncodedStructure:
    """The encoded structure for a known group, standard setting and assignment of atoms to orbits.

    Raises:
        SymmetryError: an atom fits no image of its Wyckoff position, images are missing or shared, or the
            ideal crystal is further from the input than ``max_displacement`` or ``max_strain``.
    """
    group = space_group(setting.space_group_number)
    P = setting.transformation
    inverse = np.linalg.inv(P)
    lattice = P.T @ unit_cell.lattice
    num_conventional = round(unit_cell.num_atoms * abs(np.linalg.det(P)))
    fit = group.lattice_subspace.fit(lattice, num_atoms=num_conventional)
    coords = (unit_cell.frac_coords - setting.origin_shift) @ inverse.T

    roots, atom_to_orbit = np.unique(setting.atom_to_root, return_inverse=True)
    position_ids = setting.wyckoff_indices[roots] + group.position_start
    projector = _Projector(fit, position_ids)

    free = projector.free_coords(projector.pull_back_points(coords[roots]))
    operation, translation, image_counts = projector.assign_images(coords, atom_to_orbit, free)
    # The search fixes the origin only to symprec: take the mean residual out of it, then average over each
    # orbit.
    residual = coords - projector.images(free, atom_to_orbit, operation, translation)
    drift = residual.mean(axis=0)
    coords -= drift
    pulled = projector.pull_back(coords, operation, translation)
    weights = np.bincount(atom_to_orbit).astype(float)
    mean = np.stack([np.bincount(atom_to_orbit, pulled[:, i]) for i in range(3)], axis=1) / weights[:, None]
    free = projector.free_coords(mean)
    residual = coords - projector.images(free, atom_to_orbit, operation, translation)

    displacements = np.sqrt((((residual + drift) @ fit.lattice) ** 2).sum(axis=1))
    worst = int(displacements.argmax())
    if displacements[worst] > max_displacement or fit.strain > max_strain:
        raise SymmetryError(
            f"the ideal crystal in space group {group.number} ({group.symbol}) is too far from the input: "
            f"atom {worst} would move {displacements[worst]:.4f} Å (limit {max_displacement:g}) and the cell "
            f"strain is {fit.strain:.4f} (limit {max_strain:g}); lower symprec, descend to a subgroup, or "
            "raise the limits"
        )
    if image_counts.min() != image_counts.max():
        raise SymmetryError(
            f"the atoms do not fill every orbit of space group {group.number} ({group.symbol}) evenly "
            f"(images are hit {int(image_counts.min())} to {int(image_counts.max())} times): atoms overlap "
            f"or the tolerance {symprec:g} Å is near an interatomic distance; lower symprec"
        )
    crystal = Crystal(
        space_group_number=group.number,
        lattice_params=fit.params,
        wyckoff_indices=position_ids - group.position_start,
        atomic_numbers=unit_cell.atomic_numbers[roots],
        free_coords=free,
    )
    return EncodedStructure(
        crystal=crystal,
        transformation=P,
        origin_shift=setting.origin_shift + P @ drift,
        rotation=fit.rotation,
        atom_to_orbit=atom_to_orbit,
        atom_to_operation=operation - group_arrays()["operation_start"][group.number - 1],
        lattice_shifts=translation,
        max_displacement=float(displacements[worst]),
        max_strain=fit.strain,
        site_properties=unit_cell.site_properties,
    )


@dataclass
class _Projector:
    """Projection of points onto the Wyckoff positions of one crystal's orbits, all orbits at once.

    Operations are rows of the table of all groups. Points are conventional fractional coordinates; T is the
    translation lattice of the group, centring included.
    """

    fit: LatticeFit
    position_ids: Int[np.ndarray, "orbits"]

    def __post_init__(self) -> None:
        tables = group_arrays()
        p = self.position_ids
        self.basis, self.origin = tables["basis"][p], tables["origin"][p]
        self.num_images, self.image_start = tables["num_images"][p], tables["image_start"][p]
        number = int(tables["position_group"][p[0]])
        self.first_operation = tables["operation_start"][number - 1]
        self.primitive, self.to_primitive = (
            tables["primitive"][number - 1],
            tables["to_primitive"][number - 1],
        )
        metric = self.fit.lattice @ self.fit.lattice.T
        weighted = self.basis.transpose(0, 2, 1) @ metric
        unused = np.arange(3) >= tables["num_free"][p][:, None]
        normal = weighted @ self.basis + np.eye(3) * unused[:, None, :]
        self.solver = np.linalg.solve(normal, weighted)

    def free_coords(self, points: Float[np.ndarray, "orbits 3"]) -> Float[np.ndarray, "orbits 3"]:
        """Free coordinates of the point of ``f(R^d)`` nearest to each orbit's point."""
        return np.matmul(self.solver, (points - self.origin)[:, :, None])[:, :, 0]

    def images(
        self,
        free: Float[np.ndarray, "orbits 3"],
        orbit: Int[np.ndarray, "n"],
        operation: Int[np.ndarray, "n"],
        translation: Float[np.ndarray, "n 3"] | float = 0.0,
    ) -> Float[np.ndarray, "n 3"]:
        """``W f(u) + t + translation`` for the chosen orbits and operations."""
        tables = group_arrays()
        points = np.matmul(self.basis, free[:, :, None])[:, :, 0] + self.origin
        rotated = np.matmul(tables["rotations"][operation], points[orbit][:, :, None])[:, :, 0]
        return rotated + tables["translations"][operation] + translation

    def pull_back(
        self,
        coords: Float[np.ndarray, "n 3"],
        operation: Int[np.ndarray, "n"],
        translation: Float[np.ndarray, "n 3"] | float = 0.0,
    ) -> Float[np.ndarray, "n 3"]:
        """``W^-1 (x - t - translation)``."""
        tables = group_arrays()
        shifted = coords - tables["translations"][operation] - translation
        return np.matmul(tables["inverse_rotations"][operation], shifted[:, :, None])[:, :, 0]

    def pull_back_points(self, coords: Float[np.ndarray, "orbits 3"]) -> Float[np.ndarray, "orbits 3"]:
        """One point per orbit, carried onto ``f(R^d)`` by the inverse of its image and a translation.

        x lies on the image ``W f(R^d) + t + T`` exactly if ``K (W^-1 (x - t) - c)`` is integer; of all images
        the one nearest to that is taken.
        """
        tables = group_arrays()
        owner, within = segment_positions(self.num_images)
        operation = tables["images"][self.image_start[owner] + within] + self.first_operation
        points = self.pull_back(coords[owner], operation)
        ids = self.position_ids[owner]
        values = np.matmul(tables["functionals"][ids], (points - self.origin[owner])[:, :, None])[:, :, 0]
        nearest = np.rint(values)
        misfit = np.abs(values - nearest).max(axis=1)
        best = segment_argmin(np.round(misfit, 6), self.num_images)
        shift = np.matmul(tables["section"][self.position_ids], nearest[best][:, :, None])[:, :, 0]
        return points[best] - shift

    def assign_images(
        self,
        coords: Float[np.ndarray, "atoms 3"],
        atom_to_orbit: Int[np.ndarray, "atoms"],
        free: Float[np.ndarray, "orbits 3"],
    ) -> tuple[Int[np.ndarray, "atoms"], Float[np.ndarray, "atoms 3"], Int[np.ndarray, "images"]]:
        """The image of its orbit nearest to each atom: (operation, translation in T, atoms on each image)."""
        tables = group_arrays()
        orbit, within = segment_positions(self.num_images)
        image_operation = tables["images"][self.image_start[orbit] + within] + self.first_operation
        image_points = self.images(free, orbit, image_operation)
        first_image = np.cumsum(self.num_images) - self.num_images

        pairs_per_atom = self.num_images[atom_to_orbit]
        atom, nth = segment_positions(pairs_per_atom)
        image = first_image[atom_to_orbit[atom]] + nth
        difference = (coords[atom] - image_points[image]) @ self.to_primitive.T
        nearest = np.rint(difference)
        offset = (difference - nearest) @ (self.primitive.T @ self.fit.lattice)
        best = segment_argmin(np.einsum("ij,ij->i", offset, offset), pairs_per_atom)
        chosen = image[best]
        counts = np.bincount(chosen, minlength=len(image_points))
        return image_operation[chosen], nearest[best] @ self.primitive.T, counts
