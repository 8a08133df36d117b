"""The space groups of one crystal at several tolerances, by two programs, against the one that was asked for."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from nucleate.crystal import UnitCell, space_group
from nucleate.crystal.encoding import analyse
from nucleate.crystal.subgroups import klassengleiche_subgroups, translationengleiche_subgroups
from nucleate.errors import SymmetryError

Kept = Literal["exact", "higher", "other", "none"]


@dataclass(frozen=True)
class FoundSymmetry:
    """What a program found at one tolerance.

    Attributes:
        number: space group; None where the search failed.
        num_operations: operations of the cell as given, its pure translations included; 0 where it failed.
    """

    number: int | None
    num_operations: int


def find_moyopy(unit_cell: UnitCell, symprec: float) -> FoundSymmetry:
    """The symmetry that moyopy finds at a tolerance in Å."""
    try:
        dataset = analyse(unit_cell, symprec=symprec)
    except SymmetryError:
        return FoundSymmetry(None, 0)
    return FoundSymmetry(int(dataset.number), len(dataset.operations.rotations))


def find_spglib(unit_cell: UnitCell, symprec: float) -> FoundSymmetry:
    """The symmetry that spglib finds at a tolerance in Å (spglib takes an angle tolerance from it by itself)."""
    import spglib  # noqa: PLC0415  loads when a symmetry is looked for

    os.environ.setdefault(
        "SPGLIB_WARNING", "OFF"
    )  # or its C code writes to standard error at a failed search
    cell = (unit_cell.lattice.tolist(), unit_cell.frac_coords.tolist(), unit_cell.atomic_numbers.tolist())
    with warnings.catch_warnings():
        # spglib announces a change of its error handling at each failed search.
        warnings.simplefilter("ignore")
        try:
            dataset = spglib.get_symmetry_dataset(cell, symprec=symprec)
        except Exception:  # its error type is not part of its stable interface
            dataset = None
    if dataset is None:
        return FoundSymmetry(None, 0)
    return FoundSymmetry(int(dataset.number), len(dataset.rotations))


@dataclass(frozen=True)
class SymmetryFindings:
    """Space groups of one crystal.

    Attributes:
        symprecs: tolerances in Å, falling.
        moyopy: what moyopy finds at each.
        spglib: what spglib finds at each.
    """

    symprecs: tuple[float, ...]
    moyopy: tuple[FoundSymmetry, ...]
    spglib: tuple[FoundSymmetry, ...]

    @property
    def agree(self) -> bool:
        """Whether the two programs name the same group at every tolerance."""
        return all(a.number == b.number for a, b in zip(self.moyopy, self.spglib))

    @property
    def is_pseudo_symmetric(self) -> bool:
        """Whether a looser tolerance finds more operations: the crystal nearly has a symmetry that it lacks."""
        return self.gain > 1

    @property
    def gain(self) -> float:
        """Operations at the loosest over operations at the tightest tolerance; NaN where a search failed."""
        loose, tight = self.moyopy[0].num_operations, self.moyopy[-1].num_operations
        return loose / tight if loose and tight else float("nan")


def find_symmetry(unit_cell: UnitCell, symprecs: Sequence[float]) -> SymmetryFindings:
    """Space groups of a cell at each tolerance, by moyopy and by spglib.

    Args:
        unit_cell: the cell as given.
        symprecs: tolerances in Å, any order.
    """
    ordered = tuple(sorted(set(symprecs), reverse=True))
    return SymmetryFindings(
        ordered,
        tuple(find_moyopy(unit_cell, s) for s in ordered),
        tuple(find_spglib(unit_cell, s) for s in ordered),
    )


def asked_against_found(asked: int, found: int | None) -> Kept:
    """What became of the group that was asked for.

    ``exact``: the group itself or its mirror image (P4_1 for P4_3: the same crystal seen in a mirror).
    ``higher``: a group that has subgroups of the asked type: the operations asked for are there, and more by
    accident. Looked at are translationengleiche subgroups, and those of klassengleiche subgroups of index 2 and 3
    (a cell two or three times smaller than the asked one). ``other``: not so. ``none``: the search failed.
    """
    if found is None:
        return "none"
    if found == asked or _unmirrored(found) == _unmirrored(asked):
        return "exact"
    wanted = _unmirrored(asked)
    # The second question is slow for cubic groups and rarely asked.
    return "higher" if wanted in _same_cell(found) or wanted in _larger_cell(found) else "other"


def _unmirrored(number: int) -> int:
    """The lower number of an enantiomorphic pair, the group itself otherwise."""
    normalizer = space_group(number).normalizer
    return min(number, normalizer.mirror_partner) if normalizer.mirror is not None else number


@cache
def _same_cell(number: int) -> frozenset[int]:
    return frozenset(_unmirrored(s.space_group_number) for s in translationengleiche_subgroups(number))


@cache
def _larger_cell(number: int) -> frozenset[int]:
    smaller = {s.space_group_number for i in (2, 3) for s in klassengleiche_subgroups(number, index=i)}
    return frozenset().union(*(_same_cell(n) for n in smaller))


def number_from(value: object) -> int | None:
    """A space group number in what came along with a crystal; None where it is none."""
    try:
        number = int(np.rint(float(value)))  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return number if 1 <= number <= 230 and abs(number - float(value)) < 1e-9 else None  # type: ignore[arg-type]
