"""Crystals and relaxations as JSON and as keys: exact to the last bit, readable by anybody."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from nucleate.crystal.crystal import Crystal
from nucleate.energetics.potential import Potential
from nucleate.energetics.relaxation import ALGORITHM, Relaxation, RelaxationSettings


def crystal_digest(crystal: Crystal) -> str:
    """BLAKE2b-128 of the exact numbers of a crystal, 32 hexadecimal digits.

    Integers as little-endian int64, real numbers as little-endian float64 with -0 as 0. Two encodings of one crystal
    (another origin, another order of orbits) have two digests: their relaxed numbers differ as well.
    """
    state = hashlib.blake2b(digest_size=16)
    for array in (
        np.array([crystal.space_group_number], "<i8"),
        np.asarray(crystal.wyckoff_indices).astype("<i8"),
        np.asarray(crystal.atomic_numbers).astype("<i8"),
        (np.asarray(crystal.lattice_params) + 0.0).astype("<f8"),
        (np.asarray(crystal.free_coords) + 0.0).astype("<f8"),
    ):
        data = array.tobytes()
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()


def content_key(kind: str, crystal: Crystal, potential: Potential, settings: Mapping[str, Any]) -> str:
    """Key of a result: what was computed, of which crystal, with which potential and settings."""
    text = json.dumps([kind, crystal_digest(crystal), potential.identity, dict(settings)], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def relaxation_key(crystal: Crystal, potential: Potential, settings: RelaxationSettings) -> str:
    """Key of a relaxation."""
    return content_key(ALGORITHM, crystal, potential, asdict(settings))


def crystal_to_json(crystal: Crystal) -> dict[str, Any]:
    """The fields of a crystal; Python writes floats so that they come back to the last bit."""
    return {
        "space_group_number": crystal.space_group_number,
        "lattice_params": crystal.lattice_params.tolist(),
        "wyckoff_indices": crystal.wyckoff_indices.tolist(),
        "atomic_numbers": crystal.atomic_numbers.tolist(),
        "free_coords": crystal.free_coords.tolist(),
    }


def crystal_from_json(record: Mapping[str, Any]) -> Crystal:
    """The crystal of ``crystal_to_json``.

    Raises:
        WyckoffError, InvalidStructureError: the record is no crystal.
    """
    return Crystal(
        int(record["space_group_number"]),
        np.array(record["lattice_params"], dtype=np.float64),
        np.array(record["wyckoff_indices"], dtype=np.int64),
        np.array(record["atomic_numbers"], dtype=np.int64),
        np.array(record["free_coords"], dtype=np.float64).reshape(-1, 3),
    )


def relaxation_to_json(relaxation: Relaxation) -> dict[str, Any]:
    """All fields of a relaxation; NaN as null."""
    record = {name: value for name, value in vars(relaxation).items() if name != "crystal"}
    record = {n: None if isinstance(v, float) and np.isnan(v) else v for n, v in record.items()}
    return {"crystal": crystal_to_json(relaxation.crystal), **record}


_REALS = ("energy", "max_force", "max_cell_force", "initial_energy", "initial_max_force", "volume_change")


def relaxation_from_json(record: Mapping[str, Any]) -> Relaxation:
    """The relaxation of ``relaxation_to_json``."""
    fields = dict(record)
    fields["crystal"] = crystal_from_json(record["crystal"])
    for name in _REALS:
        fields[name] = float("nan") if fields[name] is None else float(fields[name])
    return Relaxation(**fields)
