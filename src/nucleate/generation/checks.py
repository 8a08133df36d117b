"""One row per generated crystal: what was asked, what came, every check."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from nucleate.crystal.crystal import Crystal
from nucleate.errors import InvalidStructureError, SymmetryError, WyckoffError
from nucleate.generation.formula import format_counts
from nucleate.physics.density import check_density
from nucleate.physics.distances import minimum_distance_matrix
from nucleate.physics.neighbours import neighbours_within
from nucleate.processes.template_constraints import is_neutral

FOUND_SYMPREC = 1e-3
"""Tolerance (Å) at which moyopy looks for the space group."""


@dataclass(frozen=True)
class GeneratedRow:
    """One crystal. Atom counts are per primitive cell.

    Attributes:
        id: name of its CIF file.
        index: number of its random stream.
        formula: reduced formula.
        composition: atoms per primitive cell.
        num_atoms: atoms per primitive cell.
        space_group_asked: the group it was made in, whose operations it has exactly.
        space_group: the group moyopy finds at 1e-3 Å; higher where the geometry happens to have more symmetry;
            None where moyopy is not installed or finds none.
        crystal_system: of the group it was made in.
        wyckoff: element and Wyckoff position of each orbit.
        num_orbits: orbits.
        num_free_coords: free coordinates.
        prototype_key: group, template and stoichiometric pattern.
        volume_per_atom: Å^3.
        density: g/cm^3.
        density_ok: whether a solid can have that density.
        min_distance: shortest distance between two atoms, periodic images included, Å.
        min_distance_ratio: the smallest ratio of a distance to the shortest that real crystals have between those
            elements; below 1 two atoms are nearer than real ones.
        denoising_error: how far the geometry network sends the crystal away from itself after a little noise; small
            where it believes in the crystal. Compare on the same template only.
        template_share: share of the templates drawn beforehand that are this one (``ranked``), an estimate of its
            probability; None without that.
        charge_neutral: one element, metals only, or oxidation states that sum to zero.
        problem: why a check could not be made, or which orbit has run onto a more special position; empty as a
            rule.
        predicted: properties that were asked for, as the weights read them; columns ``predicted_NAME`` of tables.
    """

    id: str
    index: int
    formula: str
    composition: str
    num_atoms: int
    space_group_asked: int
    space_group: int | None
    crystal_system: str
    wyckoff: str
    num_orbits: int
    num_free_coords: int
    prototype_key: str
    volume_per_atom: float
    density: float
    density_ok: bool
    min_distance: float
    min_distance_ratio: float
    denoising_error: float
    template_share: float | None
    charge_neutral: bool
    problem: str = ""
    predicted: Mapping[str, float] = field(default_factory=dict)


def crystal_id(index: int, crystal: Crystal) -> str:
    """Name of a generated crystal, the same in every run that makes it: ``00012-O3SrTi``."""
    return f"{index:05d}-{crystal.formula}"


def check_crystal(
    index: int,
    crystal: Crystal,
    *,
    denoising_error: float = math.nan,
    template_share: float | None = None,
    predicted: Mapping[str, float] | None = None,
) -> GeneratedRow:
    """The row of a crystal, made with this denoising error on a template of this share; properties as predicted."""
    problems: list[str] = []
    nearest = ratio = math.nan
    try:
        nearest, ratio = shortest_distances(crystal)
    except InvalidStructureError as error:
        problems.append(str(error))
    try:
        crystal.check_orbits()
    except WyckoffError as error:
        problems.append(str(error))
    found = None
    try:
        found = _found_group(crystal)
    except (SymmetryError, InvalidStructureError) as error:
        problems.append(str(error))
    counts = crystal.composition
    symbols = [format_counts({int(z): 1}) for z in crystal.atomic_numbers]
    return GeneratedRow(
        id=crystal_id(index, crystal),
        index=index,
        formula=crystal.formula,
        composition=format_counts(counts),
        num_atoms=crystal.num_atoms_primitive,
        space_group_asked=crystal.space_group_number,
        space_group=found,
        crystal_system=crystal.group.crystal_system,
        wyckoff=" ".join(f"{s}:{p.label}" for s, p in zip(symbols, crystal.positions)),
        num_orbits=crystal.num_orbits,
        num_free_coords=crystal.num_free_coords,
        prototype_key=crystal.prototype_key,
        volume_per_atom=crystal.volume_per_atom,
        density=crystal.density,
        density_ok=check_density(crystal.density).ok,
        min_distance=nearest,
        min_distance_ratio=ratio,
        denoising_error=denoising_error,
        template_share=template_share,
        charge_neutral=is_neutral(tuple(counts.items())),
        problem="; ".join(problems),
        predicted=predicted or {},
    )


def shortest_distances(crystal: Crystal) -> tuple[float, float]:
    """(shortest distance in Å, smallest ratio of a distance to the least that real crystals have for its elements).

    Raises:
        InvalidStructureError: the cell is collapsed beyond searching.
    """
    cell = crystal.unit_cell("primitive")
    minimum = minimum_distance_matrix()
    present = np.unique(cell.atomic_numbers)
    # far enough for every pair that could have the smallest ratio, and for one neighbour at least
    radius = max(1.2 * crystal.volume_per_atom ** (1 / 3), float(minimum[np.ix_(present, present)].max()))
    while True:
        pairs = neighbours_within(cell.lattice, cell.frac_coords, radius=radius)
        if len(pairs):
            z = cell.atomic_numbers
            ratios = pairs.distances / minimum[z[pairs.first], z[pairs.second]]
            return float(pairs.distances.min()), float(ratios.min())
        radius *= 1.5


@cache
def _symmetry_search() -> Callable[..., Any] | None:
    """What looks for the group where moyopy is installed; sampling needs none."""
    try:
        from nucleate.crystal.encoding import analyse  # noqa: PLC0415  (loads moyopy)
    except ModuleNotFoundError:
        return None
    return analyse


def _found_group(crystal: Crystal) -> int | None:
    analyse = _symmetry_search()
    return None if analyse is None else analyse(crystal.unit_cell("primitive"), symprec=FOUND_SYMPREC).number
