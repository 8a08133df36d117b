"""Columns of a store: what one row holds, and how an encoded record becomes one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from nucleate.data.property_values import PROPERTY_PREFIX, property_columns
from nucleate.data.site_values import site_properties_to_text

if TYPE_CHECKING:
    from nucleate.crystal import Crystal, EncodedStructure

# Version 2 keeps the site properties with the way back; version 1, which did not, is still read.
SCHEMA_VERSION = 2
READABLE_VERSIONS = (1, 2)

# Random access decodes one row group: few enough rows to be quick, enough for zstd to find what repeats.
ROW_GROUP_SIZE = 512

FRAME_PREFIX = "frame."

# What a Crystal is built from; reading for training touches these columns and no others.
CRYSTAL_COLUMNS = (
    "space_group_number",
    "wyckoff_indices",
    "atomic_numbers",
    "free_coords",
    "lattice_params",
    "num_atoms_primitive",
)

_FIXED = {
    "id": pa.string(),
    "digest": pa.binary(16),
    "split": pa.string(),
    "space_group_number": pa.int16(),
    "wyckoff_indices": pa.list_(pa.uint8()),
    "atomic_numbers": pa.list_(pa.uint8()),
    "free_coords": pa.list_(pa.float64()),
    "lattice_params": pa.list_(pa.float64()),
    "num_atoms_primitive": pa.int32(),
    "formula": pa.string(),
    "prototype_key": pa.string(),
    "bucket_key": pa.string(),
    "handedness": pa.int8(),
    "volume_per_atom": pa.float64(),
    "density": pa.float64(),
    "max_displacement": pa.float64(),
    "max_strain": pa.float64(),
    "space_group_number_at_0.1": pa.int16(),
    "space_group_number_at_0.01": pa.int16(),
    "space_group_number_at_0.001": pa.int16(),
    "provenance.source": pa.string(),
    "provenance.file": pa.string(),
    "provenance.row": pa.string(),
    "provenance.database_id": pa.string(),
    "provenance.licence": pa.string(),
    "provenance.url": pa.string(),
    "provenance.reference": pa.string(),
}

_FRAME = {
    "frame.transformation": pa.list_(pa.float64()),
    "frame.origin_shift": pa.list_(pa.float64()),
    "frame.rotation": pa.list_(pa.float64()),
    "frame.atom_to_orbit": pa.list_(pa.int32()),
    "frame.atom_to_operation": pa.list_(pa.int32()),
    "frame.lattice_shifts": pa.list_(pa.float64()),
}

SITE_COLUMN = "frame.site_properties"
_SITE = {SITE_COLUMN: pa.string()}

TOLERANCE_PREFIX = "space_group_number_at_"
FRAME_COLUMNS = (*_FRAME, SITE_COLUMN)


def fixed_schema(*, frame: bool, version: int = SCHEMA_VERSION) -> pa.Schema:
    """Schema of the columns every store of a version has, with those of the way back if ``frame``."""
    return pa.schema({**_FIXED, **(_FRAME if frame else {}), **(_SITE if frame and version > 1 else {})})


def crystal_row(crystal: Crystal) -> dict[str, Any]:
    """Values of the columns that describe a crystal; ``free_coords`` three per orbit, zero where not free."""
    return {
        "space_group_number": crystal.space_group_number,
        "wyckoff_indices": np.asarray(crystal.wyckoff_indices, dtype=np.uint8),
        "atomic_numbers": np.asarray(crystal.atomic_numbers, dtype=np.uint8),
        "free_coords": np.asarray(crystal.free_coords, dtype=np.float64).ravel(),
        "lattice_params": np.asarray(crystal.lattice_params, dtype=np.float64),
        "num_atoms_primitive": crystal.num_atoms_primitive,
        "formula": crystal.formula,
        "prototype_key": crystal.prototype_key,
        "bucket_key": crystal.bucket_key,
        "handedness": int(crystal.handedness),
        "volume_per_atom": crystal.volume_per_atom,
        "density": crystal.density,
    }


def tolerance_row(groups: Mapping[float, int | None]) -> dict[str, int | None]:
    """Values of the columns that hold the space group found at each tolerance (Å)."""
    return {f"{TOLERANCE_PREFIX}{tolerance:g}": number for tolerance, number in groups.items()}


def frame_row(encoded: EncodedStructure) -> dict[str, Any]:
    """Values of the columns that lead back to the original cell, frame and sites, arrays flattened by row."""
    return {
        "frame.transformation": np.asarray(encoded.transformation, dtype=np.float64).ravel(),
        "frame.origin_shift": np.asarray(encoded.origin_shift, dtype=np.float64),
        "frame.rotation": np.asarray(encoded.rotation, dtype=np.float64).ravel(),
        "frame.atom_to_orbit": np.asarray(encoded.atom_to_orbit, dtype=np.int32),
        "frame.atom_to_operation": np.asarray(encoded.atom_to_operation, dtype=np.int32),
        "frame.lattice_shifts": np.asarray(encoded.lattice_shifts, dtype=np.float64).ravel(),
        SITE_COLUMN: site_properties_to_text(encoded.site_properties),
    }


def rows_to_table(
    rows: Sequence[Mapping[str, Any]], properties: Sequence[Mapping[str, Any]], *, frame: bool
) -> pa.Table:
    """Table of a shard: the fixed columns of ``rows`` and one typed column per property."""
    schema = fixed_schema(frame=frame)
    arrays = [pa.array([row.get(field.name) for row in rows], type=field.type) for field in schema]
    columns = property_columns(properties)
    names = [*schema.names, *(PROPERTY_PREFIX + name for name in columns)]
    return pa.table([*arrays, *columns.values()], names=names)
