"""What all records of one data set share, and the making of records and rejections from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nucleate.crystal.cell_checks import check_lattice
from nucleate.crystal.unit_cell import UnitCell
from nucleate.data.record import Provenance, Record
from nucleate.data.sources.foreign_values import clean_properties
from nucleate.errors import InvalidStructureError, NucleateError

_LONGEST_REASON = 400


@dataclass(frozen=True)
class Dataset:
    """Name, units, terms and citation of a data set.

    Attributes:
        name: short name that goes into each record's provenance.
        units: unit of each property whose unit is known.
        licence: terms of use, None where unknown.
        url: page of the data set.
        reference: what to cite.
        source_column: property that names the data set of each record, where a table holds several; records without a
            value have ``name``.
    """

    name: str
    units: Mapping[str, str] = field(default_factory=dict)
    licence: str | None = None
    url: str | None = None
    reference: str | None = None
    source_column: str | None = None

    def record(
        self,
        record_id: str,
        structure: UnitCell,
        *,
        properties: Mapping[str, Any],
        file: str,
        row: int | str,
        database_id: str | None = None,
        licence: str | None = None,
        url: str | None = None,
        reference: str | None = None,
        units: Mapping[str, str] | None = None,
    ) -> Record:
        """A record of this data set; properties without a value are left out, units follow the properties."""
        cleaned = clean_properties(properties)
        own_name = cleaned.pop(self.source_column, None) if self.source_column is not None else None
        known = {**self.units, **(units or {})}
        return Record(
            id=record_id,
            structure=structure,
            properties=cleaned,
            units={name: known[name] for name in cleaned if name in known},
            provenance=Provenance(
                source=self.name if own_name is None else str(own_name),
                file=file,
                row=row,
                database_id=database_id,
                licence=licence or self.licence,
                url=url or self.url,
                reference=reference or self.reference,
            ),
        )


class DatasetSource:
    """What every source of one data set answers alike: its name, its units and its terms.

    Attributes:
        dataset: name, units, terms and citation; a field of each source.
    """

    dataset: Dataset

    @property
    def name(self) -> str:
        """Short name of the data set."""
        return self.dataset.name

    @property
    def units(self) -> Mapping[str, str]:
        """Units of the properties as far as known before reading; a record may carry more."""
        return self.dataset.units

    @property
    def licence(self) -> str | None:
        """Terms of use of the whole as far as known; a record may carry stricter ones."""
        return self.dataset.licence


def reason_of(error: BaseException) -> str:
    """The error as one sentence without line breaks; foreign errors are named by their type."""
    text = " ".join(str(error).split())
    if not isinstance(error, NucleateError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= _LONGEST_REASON else text[: _LONGEST_REASON - 1] + "…"


def unit_cell_from_arrays(
    numbers: ArrayLike,
    lattice: ArrayLike,
    *,
    name: str,
    frac: ArrayLike | None = None,
    cart: ArrayLike | None = None,
) -> UnitCell:
    """The unit cell of plain arrays: atomic numbers, 9 lattice numbers (rows a, b, c), 3N coordinates.

    Distances between atoms are not looked at; the encoder does that.

    Args:
        numbers: N atomic numbers.
        lattice: 3 x 3 or 9 numbers in Å.
        name: what to call the structure in an error.
        frac: fractional coordinates, N x 3 or 3N numbers; this or ``cart``.
        cart: Cartesian coordinates in Å, N x 3 or 3N numbers.

    Raises:
        InvalidStructureError: wrong lengths, NaN or infinite numbers, unknown elements, no atoms.
    """
    try:
        z = np.asarray(numbers, dtype=np.float64).reshape(-1)
        cell = np.array(lattice, dtype=np.float64).reshape(-1)
        coords = np.array(frac if frac is not None else cart, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError) as error:
        raise InvalidStructureError(
            f"{name}: lattice, coordinates or atomic numbers are not numbers ({error})"
        ) from error
    if len(z) == 0:
        raise InvalidStructureError(f"{name} has no atoms")
    if len(cell) != 9:
        raise InvalidStructureError(f"{name}: a lattice has 9 numbers (rows a, b, c), got {len(cell)}")
    if len(coords) != 3 * len(z):
        raise InvalidStructureError(
            f"{name}: {len(z)} atoms need {3 * len(z)} coordinates, got {len(coords)}"
        )
    if not (np.isfinite(cell).all() and np.isfinite(coords).all()):
        raise InvalidStructureError(f"{name} has NaN or infinite numbers in its lattice or coordinates")
    wrong = z[~((z >= 1) & (z <= 118) & (z == np.floor(z)))]
    if len(wrong):
        raise InvalidStructureError(
            f"{name}: atomic numbers are whole numbers from 1 to 118, got {wrong[0]:g}"
        )
    matrix, points = cell.reshape(3, 3), coords.reshape(-1, 3)
    if frac is None:
        points = points @ check_lattice(matrix, name=name)
    return UnitCell(matrix, np.ascontiguousarray(points), z.astype(np.int64))
