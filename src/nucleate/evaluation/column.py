"""A column of the table of crystals: its name, type and unit, and what it says."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True)
class Column:
    """A column of the table of crystals.

    Attributes:
        name: its name, unique over all families.
        type: Arrow type; a row without a value is null.
        description: what a value says, one sentence.
        unit: unit of its values, empty for bare numbers and text.
        public: whether it stands in ``crystals.parquet`` and ``crystals.csv``; a fingerprint of hundreds of
            numbers that only the summary needs does not.
    """

    name: str
    type: pa.DataType
    description: str
    unit: str = ""
    public: bool = True
