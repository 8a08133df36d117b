"""The exact crystal nearest to a structure whose group, setting and orbits are known."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.encoded import EncodedStructure
from nucleate.crystal.ragged import segment_positions
from nucleate.crystal.setting import StandardSetting
from nucleate.crystal.space_group import space_group
from nucleate.crystal.tables import group_arrays
from nucleate.crystal.unit_cell import UnitCell
from nucleate.errors import SymmetryError
from nucleate.shapes import Float, Int

_CELL_EDGE = 1e-6  # a free coordinate this little below a whole period is noise above it
_TIE = 1e-6  # misfits of images that differ by less are equal
_ROUNDING = 1e-13  # fractional residuals below this are rounding, not displacements
_PAIRS_AT_ONCE = 2**20  # atoms times images held in memory
_ONES = np.ones(3)


@dataclass(frozen=True, eq=False)
class ImageTable:
    """Every image of every Wyckoff position of all groups in one row each, in the primitive basis of its group.

    In that basis the translation lattice is Z^3. The images of a position stand in the order of its operations;
    one of them is ``x = linear u + point + n``, n integer.

    Attributes:
        linear: ``W B``, zero in the columns that are not free.
        point: ``W c + t``.
        solve: two 3x3 blocks below each other, to be applied to ``x - point``. The upper one is ``K W^-1``: x lies
            on the image exactly if it gives integers. The lower one gives the free coordinates of the nearest
            point of the image in the Cartesian metric. The nearest point is found without a metric: averaged over
            the site-symmetry group S_w, isometries all, a vector is projected orthogonally on what S_w leaves
            fixed, ``B^+ |S_w|^-1 sum_{W' in S_w} W' W^-1``.
        from_integers: by position, what the integers of the upper block, rounded, take off the free coordinates.
        inverse_period: by position, the inverse of the period lattice, zero beyond the free coordinates.
        operation: operation of the group that makes the image, counted within the group.
    """

    linear: Float[np.ndarray, "images 3 3"]
    point: Float[np.ndarray, "images 3"]
    solve: Float[np.ndarray, "images 6 3"]
    from_integers: Float[np.ndarray, "positions 3 3"]
    inverse_period: Float[np.ndarray, "positions 3 3"]
    operation: Int[np.ndarray, "images"]


@dataclass(frozen=True, eq=False)
class _Template:
    """What the positions of a crystal's orbits say of its images: their rows of the table, orbit by orbit.

    ``orbit`` is the orbit of each image, ``counts`` the number of images of each orbit; ``from_integers`` and the
    period lattice with its inverse are those of each orbit's position.
    """

    rows: Int[np.ndarray, "images"]
    orbit: Int[np.ndarray, "images"]
    counts: tuple[int, ...]
    has_free_coords: bool
    from_integers: Float[np.ndarray, "orbits 3 3"]
    period: Float[np.ndarray, "orbits 3 3"]
    inverse_period: Float[np.ndarray, "orbits 3 3"]


@lru_cache(maxsize=2048)
def _template(space_group_number: int, wyckoff_indices: tuple[int, ...]) -> _Template:
    tables, images = group_arrays(), image_table()
    position_ids = np.array(wyckoff_indices) + tables["position_start"][space_group_number - 1]
    counts = tables["num_images"][position_ids]
    orbit, within = segment_positions(counts)
    return _Template(
        rows=tables["image_start"][position_ids][orbit] + within,
        orbit=orbit,
        counts=tuple(counts.tolist()),
        has_free_coords=bool(tables["num_free"][position_ids].any()),
        from_integers=images.from_integers[position_ids],
        period=tables["period"][position_ids],
        inverse_period=images.inverse_period[position_ids],
    )


@cache
def image_table() -> ImageTable:
    """The images of all 1,731 positions."""
    tables = group_arrays()
    num_images = tables["num_images"]
    position = np.repeat(np.arange(len(num_images)), num_images)
    group = tables["position_group"][position] - 1
    row = tables["operation_start"][group] + tables["images"]
    to_primitive, primitive = tables["to_primitive"][group], tables["primitive"][group]
    rotations, inverse = tables["rotations"][row], tables["inverse_rotations"][row]
    basis, origin = tables["basis"][position], tables["origin"][position]
    points = np.einsum("rij,rj->ri", rotations, origin) + tables["translations"][row]

    first, counts = tables["stabiliser_start"][:-1], np.diff(tables["stabiliser_start"])
    stabiliser_group = np.repeat(tables["position_group"] - 1, counts)
    members = tables["rotations"][tables["operation_start"][stabiliser_group] + tables["stabiliser"]]
    projector = np.add.reduceat(members, first) / counts[:, None, None]
    projector = np.linalg.pinv(tables["basis"]) @ projector
    used = np.arange(3) < tables["num_free"][:, None]
    period = tables["period"] + np.eye(3) * ~used[:, None, :]  # invertible, whatever the number of periods
    upper = tables["functionals"][position] @ inverse @ primitive
    lower = projector[position] @ inverse @ primitive
    return ImageTable(
        linear=to_primitive @ rotations @ basis,
        point=np.einsum("rij,rj->ri", to_primitive, points),
        solve=np.concatenate([upper, lower], axis=1),
        from_integers=projector @ tables["section"],
        inverse_period=np.linalg.inv(period) * (used[:, None, :] & used[:, :, None]),
        operation=tables["images"],
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

    One atom of each orbit gives first free coordinates; with them every atom finds the image of its orbit it lies
    on. The free coordinates are then refined by the mean, over the orbit, of each atom's distance from its
    image carried back to the representative: the least-squares fit to all atoms.

    Raises:
        SymmetryError: images are missing or shared, or the ideal crystal is further from the input than
            ``max_displacement`` or ``max_strain``.
    """
    group, images = space_group(setting.space_group_number), image_table()
    number = group.number - 1
    primitive, to_primitive = group_arrays()["primitive"][number], group_arrays()["to_primitive"][number]
    num_conventional = round(unit_cell.num_atoms * setting.volume_ratio)
    fit = group.lattice_subspace.fit(setting.transformation.T @ unit_cell.lattice, num_atoms=num_conventional)
    rows_abc = primitive.T @ fit.lattice
    coords = (unit_cell.frac_coords - setting.origin_shift) @ (to_primitive @ setting.inverse).T
    template = _template(group.number, tuple(setting.wyckoff_indices.tolist()))
    atom_to_orbit = setting.atom_to_orbit

    num_expected = len(template.rows) * group.num_centrings
    if num_conventional != num_expected:
        raise SymmetryError(
            f"the symmetry search at symprec {symprec:g} Å contradicts itself: the conventional cell it found has "
            f"room for {num_conventional} atoms, the orbits it found in space group {group.number} "
            f"({group.symbol}) hold {num_expected}; lower symprec"
        )
    free = np.zeros((len(template.counts), 3))
    points = images.point[template.rows]
    if template.has_free_coords:
        free = _free_coords_of_points(coords[setting.representatives], template)
        periods = np.floor(_apply(template.inverse_period, free) + _CELL_EDGE)
        free -= _apply(template.period, periods)  # into the cell of u
        points += _apply(images.linear[template.rows], free[template.orbit])
    image, residual, shifts = _nearest_images(coords, points, template.orbit, atom_to_orbit, rows_abc)
    rows = template.rows[image]
    origin_shift = setting.origin_shift
    if np.vdot(residual, residual) > _ROUNDING**2:
        step = _mean_by_orbit(_apply(images.solve[rows, 3:], residual), atom_to_orbit)
        free = free + step
        residual = residual - _apply(images.linear[rows], step[atom_to_orbit])
        # The search fixes the origin only to symprec: the mean residual of all atoms is a shift of it.
        drift = primitive @ (residual.sum(axis=0) / len(residual))
        origin_shift = origin_shift + setting.transformation @ drift
    moved = residual @ rows_abc
    squared = (moved * moved) @ _ONES
    worst = int(squared.argmax())
    displacement = float(squared[worst]) ** 0.5
    if displacement > max_displacement or fit.strain > max_strain:
        raise SymmetryError(
            f"the ideal crystal in space group {group.number} ({group.symbol}) is too far from the input: "
            f"atom {worst} would move {displacement:.4f} Å (limit {max_displacement:g}) and the cell "
            f"strain is {fit.strain:.4f} (limit {max_strain:g}); lower symprec, descend to a subgroup, or "
            "raise the limits"
        )
    hits = np.bincount(image, minlength=len(points)).tolist()
    if min(hits) != max(hits):
        raise SymmetryError(
            f"the atoms do not fill every orbit of space group {group.number} ({group.symbol}) evenly "
            f"(images are hit {min(hits)} to {max(hits)} times): atoms overlap "
            f"or the tolerance {symprec:g} Å is near an interatomic distance; lower symprec"
        )
    crystal = Crystal(
        space_group_number=group.number,
        lattice_params=fit.params,
        wyckoff_indices=setting.wyckoff_indices,
        atomic_numbers=unit_cell.atomic_numbers[setting.representatives],
        free_coords=free,
    )
    return EncodedStructure(
        crystal=crystal,
        transformation=setting.transformation,
        origin_shift=origin_shift,
        rotation=fit.rotation,
        atom_to_orbit=atom_to_orbit,
        atom_to_operation=images.operation[rows],
        lattice_shifts=shifts @ primitive.T,
        max_displacement=displacement,
        max_strain=fit.strain,
        site_properties=unit_cell.site_properties,
    )


def _apply(
    matrices: Float[np.ndarray, "n i j"], vectors: Float[np.ndarray, "n j"]
) -> Float[np.ndarray, "n i"]:
    """Each matrix times its vector."""
    return np.matmul(matrices, vectors[:, :, None])[:, :, 0]


def _mean_by_orbit(
    vectors: Float[np.ndarray, "atoms 3"], atom_to_orbit: Int[np.ndarray, "atoms"]
) -> Float[np.ndarray, "orbits 3"]:
    """The mean of the vectors of each orbit's atoms."""
    components = 3 * atom_to_orbit[:, None] + np.arange(3)
    sums = np.bincount(components.ravel(), vectors.ravel()).reshape(-1, 3)
    return sums / np.bincount(atom_to_orbit)[:, None]


def _free_coords_of_points(
    points: Float[np.ndarray, "orbits 3"], template: _Template
) -> Float[np.ndarray, "orbits 3"]:
    """Free coordinates of one atom of each orbit, taken to lie on the image whose functionals it fits best."""
    images = image_table()
    values = _apply(images.solve[template.rows], points[template.orbit] - images.point[template.rows])
    integers = np.rint(values[:, :3])
    # Images that fit equally well differ by rounding: the first of them is taken.
    misfit = np.rint((np.abs(values[:, :3] - integers) @ _ONES) / _TIE).tolist()
    best, start = [], 0
    for count in template.counts:
        mine = misfit[start : start + count]
        best.append(start + mine.index(min(mine)))
        start += count
    return values[best, 3:] - _apply(template.from_integers, integers[best])


def _nearest_images(
    coords: Float[np.ndarray, "atoms 3"],
    points: Float[np.ndarray, "images 3"],
    image_to_orbit: Int[np.ndarray, "images"],
    atom_to_orbit: Int[np.ndarray, "atoms"],
    rows_abc: Float[np.ndarray, "3 3"],
) -> tuple[Int[np.ndarray, "atoms"], Float[np.ndarray, "atoms 3"], Float[np.ndarray, "atoms 3"]]:
    """(nearest image of its own orbit, ``x - point - n``, n) of each atom, in the primitive basis."""
    block = max(1, _PAIRS_AT_ONCE // len(points))
    if len(coords) > block:
        parts = [
            _nearest_images(
                coords[i : i + block], points, image_to_orbit, atom_to_orbit[i : i + block], rows_abc
            )
            for i in range(0, len(coords), block)
        ]
        image, residual, shifts = (np.concatenate(part) for part in zip(*parts, strict=True))
        return image, residual, shifts
    # Components first: long rows make the operations on all pairs fast.
    columns, point_columns = np.ascontiguousarray(coords.T), np.ascontiguousarray(points.T)
    difference = (columns[:, :, None] - point_columns[:, None]).reshape(3, -1)
    shifts = np.rint(difference)
    difference -= shifts
    distance = rows_abc.T @ difference
    squared = (_ONES @ (distance * distance)).reshape(len(coords), -1)
    image = squared.argmin(axis=1)
    if np.count_nonzero(image_to_orbit[image] != atom_to_orbit):  # orbits within the tolerance of each other
        image = np.where(image_to_orbit == atom_to_orbit[:, None], squared, np.inf).argmin(axis=1)
    pairs = image + np.arange(0, squared.size, len(points))
    return image, difference[:, pairs].T, shifts[:, pairs].T
