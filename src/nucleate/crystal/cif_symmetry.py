"""Symmetry operations of a CIF block: listed ones, otherwise those of its Hall or Hermann-Mauguin symbol."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nucleate.crystal.cif_block import NULL_VALUES, CifTags, unquoted
from nucleate.crystal.lattice_parameters import parameters_from_lattice
from nucleate.crystal.operation import (
    Operation,
    OperationList,
    combine_with_centrings,
    operations_from_triplets,
    parse_operation,
    stack_operations,
)
from nucleate.errors import InvalidStructureError, ParseError
from nucleate.shapes import Float

METRIC_TOLERANCE = 0.02
"""Largest relative change of the metric tensor under an operation: about 1 % in length, 1 degree in angle."""

_OPERATION_TAGS = (
    "_space_group_symop_operation_xyz",
    "_symmetry_equiv_pos_as_xyz",
    "_space_group_symop.operation_xyz",
)
_MAGNETIC_OPERATION_TAGS = (
    "_space_group_symop_magn_operation.xyz",
    "_space_group_symop_magn_operation_xyz",
    "_space_group_symop.magn_operation_xyz",
)
_MAGNETIC_CENTRING_TAGS = (
    "_space_group_symop_magn_centering.xyz",
    "_space_group_symop_magn_centering_xyz",
    "_space_group_symop.magn_centering_xyz",
)
_MAGNETIC_NAME_TAGS = (
    "_space_group_magn.number_BNS",
    "_space_group_magn_number_BNS",
    "_space_group_magn.name_BNS",
    "_space_group_magn_name_BNS",
    "_space_group_magn.number_OG",
)
_MODULATION_TAGS = (
    "_cell_modulation_dimension",
    "_cell_wave_vector_seq_id",
    "_cell_wave_vector.seq_id",
    "_cell_wave_vector_x",
    "_space_group_ssg_name",
    "_space_group_symop_ssg_operation_algebraic",
    "_space_group_symop_magn_ssg_operation.algebraic",
)
_HALL_TAGS = ("_space_group_name_Hall", "_symmetry_space_group_name_Hall", "_space_group.name_Hall")
_NAME_TAGS = (
    "_space_group_name_H-M_alt",
    "_symmetry_space_group_name_H-M",
    "_space_group_name_H-M_full",
    "_space_group.name_H-M_alt",
    "_space_group.name_H-M_full",
    "_symmetry.space_group_name_H-M",
)
_NUMBER_TAGS = (
    "_space_group_IT_number",
    "_symmetry_Int_Tables_number",
    "_space_group.IT_number",
    "_symmetry.Int_Tables_number",
)
_SETTING_TAGS = ("_space_group_IT_coordinate_system_code", "_space_group.IT_coordinate_system_code")
_ORIGIN_LETTER = {"S": "1", "Z": "2", "1": "1", "2": "2"}  # ICSD writes "F d -3 m S" and "F d -3 m Z"


@dataclass(frozen=True, eq=False)
class CifSymmetry:
    """Operations of a block.

    Attributes:
        operations: the group; time reversals are +1 unless magnetic.
        is_magnetic: the block gives magnetic operations.
    """

    operations: OperationList
    is_magnetic: bool


def read_symmetry(tags: CifTags) -> CifSymmetry:
    """Operations of a block: magnetic, else listed ones, else those of Hall symbol, H-M symbol or number.

    Listed operations win over any symbol. A symbol that leaves the origin or the axes open is refused, not
    guessed; for rhombohedral groups the cell angles decide.

    Raises:
        ParseError: no symmetry at all, operations that do not parse or are no group, an unknown or ambiguous
            symbol, a modulated structure.
    """
    for tag in _MODULATION_TAGS:
        value = tags.column(tag)
        if value is not None and value[0] not in (*NULL_VALUES, "0"):
            raise ParseError(
                f"{tags.where} is a modulated structure ({tag}); it has no unit cell in three dimensions"
            )
    magnetic = _listed(tags, _MAGNETIC_OPERATION_TAGS)
    try:
        if magnetic is not None:
            centrings = _listed(tags, _MAGNETIC_CENTRING_TAGS) or ("x,y,z,+1",)
            return CifSymmetry(_magnetic_operations(magnetic, centrings), True)
        triplets = _listed(tags, _OPERATION_TAGS)
        if triplets is not None:
            return CifSymmetry(operations_from_triplets(triplets), False)
        if tags.text(*_MAGNETIC_NAME_TAGS) is not None:
            raise ParseError(
                "names a magnetic group without its operations; list _space_group_symop_magn_operation.xyz"
            )
        return CifSymmetry(_operations_from_symbols(tags), False)
    except ParseError as error:
        raise ParseError(f"{tags.where}: {error}") from error


def check_metric(lattice: Float[np.ndarray, "3 3"], operations: OperationList, *, where: str) -> None:
    """Nothing, if every operation maps the lattice onto itself: ``W^T G W = G`` with ``G_ij = a_i . a_j``.

    Raises:
        InvalidStructureError: cell and operations belong to different settings or one of them is damaged.
    """
    metric = lattice @ lattice.T
    lengths = np.sqrt(np.diag(metric))
    rotations = operations.rotations
    change = np.abs(np.swapaxes(rotations, 1, 2) @ metric @ rotations - metric) / np.outer(lengths, lengths)
    worst = int(change.max(axis=(1, 2)).argmax())
    if change[worst].max() > METRIC_TOLERANCE:
        cell = ", ".join(f"{value:.6g}" for value in parameters_from_lattice(lattice))
        raise InvalidStructureError(
            f"{where}: cell and symmetry contradict each other: "
            f"the rotation {rotations[worst].tolist()} does not map the cell {cell} onto itself "
            f"(metric changes by {change[worst].max():.3g})"
        )


def _listed(tags: CifTags, names: Sequence[str]) -> tuple[str, ...] | None:
    for name in names:
        column = tags.column(name)
        if column is not None and not all(value in NULL_VALUES for value in column):
            return tuple(unquoted(value).strip() for value in column)
    return None


@functools.lru_cache(maxsize=128)
def _magnetic_operations(operations: tuple[str, ...], centrings: tuple[str, ...]) -> OperationList:
    for text in (*operations, *centrings):
        if text.count(",") != 3:
            raise ParseError(f"magnetic symmetry operation {text!r} has no time reversal (x,y,z,+1)")
    parsed = [[parse_operation(text) for text in texts] for texts in (operations, centrings)]
    return stack_operations(combine_with_centrings(*parsed))


def _operations_from_symbols(tags: CifTags) -> OperationList:
    hall, name = tags.text(*_HALL_TAGS), tags.text(*_NAME_TAGS)
    number = _space_group_number(tags)
    if hall is not None:
        operations, found = _operations_from_hall(hall)
        symbol = f"Hall symbol {hall!r}"
    elif name is not None or number is not None:
        alpha, gamma = (tags.number(f"_cell_angle_{a}", f"_cell.angle_{a}") for a in ("alpha", "gamma"))
        setting = tags.text(*_SETTING_TAGS)
        is_rhombohedral = abs(alpha - gamma) < 1.0 and abs(gamma - 120) > 1.0
        operations, found = _operations_from_name(
            name, number, setting=setting, is_rhombohedral=is_rhombohedral
        )
        symbol = f"symbol {name!r}"
    else:
        raise ParseError(
            "gives no symmetry: no operations, no Hall or Hermann-Mauguin symbol, no group number; "
            "for a full list of atoms add _space_group_symop_operation_xyz 'x,y,z'"
        )
    if number is not None and found is not None and number != found:
        raise ParseError(f"{symbol} is space group {found}, but the number given is {number}")
    return operations


def _space_group_number(tags: CifTags) -> int | None:
    text = tags.text(*_NUMBER_TAGS)
    if text is None:
        return None
    if not re.fullmatch(r"\d{1,3}", text, re.ASCII) or not 1 <= int(text) <= 230:
        raise ParseError(f"space group number {text[:20]!r} is not one of 1..230")
    return int(text)


@functools.lru_cache(maxsize=512)
def _operations_from_hall(hall: str) -> tuple[OperationList, int | None]:
    import gemmi  # noqa: PLC0415  foreign readers load late

    try:
        group = gemmi.symops_from_hall(hall)
    except (RuntimeError, ValueError) as error:
        raise ParseError(f"Hall symbol {hall[:60]!r} does not parse: {error}") from error
    found = gemmi.find_spacegroup_by_ops(group)
    return _from_gemmi(group), found.number if found is not None else None


@functools.lru_cache(maxsize=1024)
def _operations_from_name(
    name: str | None, number: int | None, *, setting: str | None, is_rhombohedral: bool
) -> tuple[OperationList, int]:
    import gemmi  # noqa: PLC0415  foreign readers load late

    if name is None:
        assert number is not None
        cleaned = gemmi.find_spacegroup_by_number(number).hm
    else:
        cleaned = re.sub(r"\((\d)\)", r"\1", name.replace("_", "").strip())
    extension = setting.upper() if setting is not None and setting.upper() in ("1", "2", "H", "R") else None
    suffix = re.fullmatch(r"(.*\S)(?:\s*:\s*|\s+)([12HRhrSZ])", cleaned)
    with_suffix = None
    if suffix is not None and gemmi.find_spacegroup_by_name(suffix[1]) is not None:
        base = gemmi.find_spacegroup_by_name(suffix[1])
        given = _ORIGIN_LETTER.get(suffix[2].upper(), suffix[2].upper())
        # "P 4 1 2" style ends belong to the symbol: only groups that have this extension take it.
        with_suffix = (
            gemmi.find_spacegroup_by_name(f"{base.hm}:{given}") if base.ext in tuple("12HR") else None
        )
        if with_suffix is not None:
            return _from_gemmi(with_suffix.operations()), with_suffix.number
    group = gemmi.find_spacegroup_by_name(cleaned)
    if group is None:
        raise ParseError(f"space group symbol {cleaned[:60]!r} is unknown, and no operations are listed")
    if group.ext and group.ext in "12":
        if extension is None:
            raise ParseError(
                f"space group {group.number} ({group.hm}) has two origin choices and no operations are "
                "listed; list them, or give the Hall symbol or an extension such as ':2'"
            )
        group = gemmi.find_spacegroup_by_name(f"{group.hm}:{extension}")
    elif group.ext and group.ext in "HR":
        group = gemmi.find_spacegroup_by_name(f"{group.hm}:{extension or ('R' if is_rhombohedral else 'H')}")
    if group is None:
        raise ParseError(f"space group symbol {cleaned!r} has no setting {extension!r}")
    return _from_gemmi(group.operations()), group.number


def _from_gemmi(group: object) -> OperationList:
    operations = []
    for op in group:  # type: ignore[attr-defined]
        (r0, r1, r2), t = [tuple(value // op.DEN for value in row) for row in op.rot], op.tran
        operations.append(Operation((r0, r1, r2), (t[0] / op.DEN, t[1] / op.DEN, t[2] / op.DEN)))
    return stack_operations(operations)
