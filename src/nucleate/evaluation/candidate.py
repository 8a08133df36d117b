"""One crystal to be judged: as it was given, as it was encoded, or why it could not be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nucleate.crystal import Crystal, EncodedStructure, UnitCell, encode
from nucleate.errors import NucleateError

SYMPREC = 0.01
"""Tolerance (Å) of the encoding that every family sees."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """One crystal of a set that is evaluated. Crystals that cannot be read or encoded are candidates too.

    Attributes:
        row: its place in the input, from 0.
        id: name, the source's own where it has one.
        file: where it came from, for messages: ``x.cif``, ``x.csv row 17``, ``x.zip!a.cif``.
        unit_cell: the cell as given (expanded to P1, Å); None where the input could not be read.
        encoded: its exact asymmetric unit and the way back to ``unit_cell``; None where it was refused.
        problem: why ``unit_cell`` or ``encoded`` is None, in one sentence; empty otherwise.
        given: values that came along: ``space_group_asked``, ``formula_asked``, ``chgnet_ehull`` and whatever
            else the input states.
    """

    row: int
    id: str
    file: str
    unit_cell: UnitCell | None
    encoded: EncodedStructure | None
    problem: str = ""
    given: Mapping[str, Any] = field(default_factory=dict)

    @property
    def crystal(self) -> Crystal | None:
        """The exact asymmetric unit, None where there is none."""
        return None if self.encoded is None else self.encoded.crystal

    @property
    def is_read(self) -> bool:
        """Whether the input could be read as a list of atoms in a cell."""
        return self.unit_cell is not None


def make_candidate(
    row: int,
    unit_cell: UnitCell,
    *,
    id: str,
    file: str,
    given: Mapping[str, Any] | None = None,
    symprec: float = SYMPREC,
    max_atoms: int = 1000,
) -> Candidate:
    """The candidate of a unit cell: encoded, or with the reason why it cannot be.

    Args:
        row: its place in the input.
        unit_cell: the cell as given.
        id: its name.
        file: where it came from.
        given: values that came along.
        symprec: tolerance of the encoding, Å.
        max_atoms: larger cells are not encoded.
    """
    encoded, problem = None, ""
    try:
        encoded = encode(unit_cell, symprec=symprec, max_atoms=max_atoms)
        # Computed on first use: here, so that a failure costs this candidate only.
        encoded.crystal.bucket_key  # noqa: B018
        encoded.crystal.handedness  # noqa: B018
    except NucleateError as error:
        problem = " ".join(str(error).split())
    except MemoryError:
        raise
    except Exception as error:
        # Generators produce cells that no library expects; one of them must not end the evaluation.
        problem = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return Candidate(row, id, file, unit_cell, None if problem else encoded, problem, dict(given or {}))
