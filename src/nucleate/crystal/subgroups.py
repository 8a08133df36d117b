"""Translationengleiche and klassengleiche subgroups, found by moyopy and put into their standard setting."""

from __future__ import annotations

from dataclasses import dataclass

import moyopy
import numpy as np

from nucleate.crystal.space_group import space_group
from nucleate.errors import SymmetryError
from nucleate.shapes import Float

_STANDARD_SETTING = moyopy.Setting.standard()


@dataclass(frozen=True, eq=False)
class Subgroup:
    """A subgroup of a space group in its own standard setting: ``x_parent = P x + p``.

    Attributes:
        space_group_number: type of the subgroup.
        transformation: P, columns are the subgroup's conventional basis in the parent's basis.
        origin_shift: p.
        index: index in the parent.
        is_translationengleiche: all translations kept (t-subgroup), otherwise the point group (k-subgroup).
    """

    space_group_number: int
    transformation: Float[np.ndarray, "3 3"]
    origin_shift: Float[np.ndarray, "3"]
    index: int
    is_translationengleiche: bool


def _primitive_operations(number: int) -> tuple[list, list, Float[np.ndarray, "3 3"]]:
    """Operations in the primitive basis of the standard setting, and that basis (columns, conventional)."""
    group = space_group(number)
    primitive = group.primitive_basis
    inverse = np.linalg.inv(primitive)
    rotations = np.rint(inverse @ group.rotations @ primitive).astype(int)
    return rotations.tolist(), (group.translations @ inverse.T).tolist(), primitive


def _identify(
    rotations: list, translations: list, basis: Float[np.ndarray, "3 3"]
) -> tuple[int, Float[np.ndarray, "3 3"], Float[np.ndarray, "3"]]:
    """(number, P, p) with ``x = P x_std + p``: operations in a primitive basis with the given rows.

    moyopy's linear part leads to the primitive basis of the standard setting; the conventional one follows.
    """
    found = moyopy.SpaceGroup(rotations, translations, basis=basis.tolist(), setting=_STANDARD_SETTING)
    to_conventional = np.linalg.inv(space_group(found.number).primitive_basis)
    return found.number, np.array(found.linear) @ to_conventional, np.array(found.origin_shift)


def translationengleiche_subgroups(number: int) -> tuple[Subgroup, ...]:
    """One representative of every conjugacy class of t-subgroups of a group, by falling order."""
    rotations, translations, primitive = _primitive_operations(number)
    lattice = primitive.T @ _generic_lattice(number)
    classes = moyopy.enumerate_translationengleiche_subgroups(rotations, translations)
    subgroups = []
    for entry in classes:
        member = entry.representative
        kind, linear, shift = _identify(member.operations.rotations, member.operations.translations, lattice)
        subgroups.append(
            Subgroup(kind, primitive @ linear, primitive @ shift, member.translationengleiche_index, True)
        )
    return tuple(sorted(subgroups, key=lambda s: (s.index, -s.space_group_number)))


def klassengleiche_subgroups(number: int, *, index: int) -> tuple[Subgroup, ...]:
    """One representative of every conjugacy class of k-subgroups of a group with this index."""
    rotations, translations, primitive = _primitive_operations(number)
    lattice = primitive.T @ _generic_lattice(number)
    subgroups = []
    for entry in moyopy.enumerate_klassengleiche_subgroups_by_index(rotations, translations, index):
        member = entry.representative
        sublattice = np.array(member.transformation)
        kind, linear, shift = _identify(
            member.operations.rotations, member.operations.translations, sublattice.T @ lattice
        )
        basis = primitive @ sublattice
        subgroups.append(Subgroup(kind, basis @ linear, basis @ shift, member.klassengleiche_index, False))
    return tuple(sorted(subgroups, key=lambda s: -s.space_group_number))


def _generic_lattice(number: int) -> Float[np.ndarray, "3 3"]:
    """A right-handed lattice of the group without further symmetry: fixes the handedness of what is found."""
    subspace = space_group(number).lattice_subspace
    params = np.array([1.7, 0.21, 0.13, -0.17, 0.11, 0.07])[: subspace.num_params]
    return subspace.to_lattice(params, num_atoms=8)


def translationengleiche_subgroup(dataset: moyopy.MoyoDataset, wanted: int | Subgroup) -> Subgroup:
    """A t-subgroup of a found group, in the input's basis.

    Args:
        dataset: the found group.
        wanted: number of the subgroup, the first class of ``translationengleiche_subgroups`` with it is taken; or
            one of those subgroups, where several classes share a number (Pmm2 along the three axes of Pmmm).

    Raises:
        SymmetryError: the group has no such t-subgroup; the message lists those it has.
    """
    parent = dataset.number
    candidates = translationengleiche_subgroups(parent)
    for subgroup in candidates:
        if _is(subgroup, wanted):
            P, p = np.array(dataset.std_linear), np.array(dataset.std_origin_shift)
            number = subgroup.space_group_number
            return Subgroup(
                number, P @ subgroup.transformation, P @ subgroup.origin_shift + p, subgroup.index, True
            )
    available = sorted({s.space_group_number for s in candidates} - {parent})
    what = wanted if isinstance(wanted, int) else f"{wanted.space_group_number} in the basis given"
    raise SymmetryError(
        f"space group {parent} ({space_group(parent).symbol}) has no translationengleiche subgroup {what}; "
        f"it has {', '.join(map(str, available)) or 'none'}"
    )


def _is(subgroup: Subgroup, wanted: int | Subgroup) -> bool:
    if isinstance(wanted, int):
        return subgroup.space_group_number == wanted
    return (
        subgroup.space_group_number == wanted.space_group_number
        and np.allclose(subgroup.transformation, wanted.transformation, rtol=0, atol=1e-9)
        and np.allclose(subgroup.origin_shift, wanted.origin_shift, rtol=0, atol=1e-9)
    )
