"""Shipped tables of the 230 space groups, written by scripts under ``scripts/``, read on first use."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

NUM_GROUPS = 230
NUM_POSITIONS = 1731


def _load_arrays(name: str) -> dict[str, np.ndarray]:
    with (
        files(__package__).joinpath(name).open("rb") as stream,
        np.load(stream, allow_pickle=False) as archive,
    ):
        return {key: archive[key] for key in archive.files}


def starts(counts: np.ndarray) -> np.ndarray:
    """Offsets of ragged rows: ``rows[starts[i]:starts[i + 1]]`` belongs to item i."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


@cache
def group_names() -> list[dict[str, Any]]:
    """Symbols and classifications of the 230 groups, by number - 1."""
    return json.loads(files(__package__).joinpath("space_groups.json").read_text(encoding="utf-8"))["groups"]


@cache
def group_arrays() -> Mapping[str, np.ndarray]:
    """Operations and Wyckoff positions of all groups as flat arrays, fractions as float64.

    ``*_start`` arrays hold the offsets: ``operation_start`` and ``centring_start`` and ``position_start`` by
    group, ``image_start``, ``stabiliser_start`` and ``map_start`` by position (positions of all groups in one
    row, letter a of each group first).
    """
    raw = _load_arrays("space_groups.npz")
    fractions = (
        "translations",
        "centrings",
        "primitive",
        "origin",
        "basis",
        "functionals",
        "section",
        "period",
        "stabiliser_shifts",
        "map_linear",
        "map_shift",
    )
    tables = {name: raw[name] / 24.0 for name in fractions}
    tables |= {name: raw[name].astype(np.int64) for name in ("rotations", "images", "stabiliser", "num_free")}
    rotation_starts = starts(raw["num_operations"])
    sums = np.add.reduceat(tables["rotations"], rotation_starts[:-1])
    tables["mean_rotations"] = sums / raw["num_operations"][:, None, None]
    for name, counts in {
        "operation_start": "num_operations",
        "centring_start": "num_centrings",
        "position_start": "num_positions",
        "image_start": "num_images",
        "stabiliser_start": "num_stabiliser",
        "map_start": "num_maps",
    }.items():
        tables[name] = starts(raw[counts])
    tables["num_images"] = raw["num_images"].astype(np.int64)
    tables["inverse_rotations"] = np.rint(np.linalg.inv(tables["rotations"])).astype(np.int64)
    tables["to_primitive"] = np.rint(np.linalg.inv(tables["primitive"]))
    tables["position_group"] = np.repeat(np.arange(1, NUM_GROUPS + 1), raw["num_positions"])
    for array in tables.values():
        array.setflags(write=False)
    return tables


@cache
def normalizer_arrays() -> Mapping[str, np.ndarray]:
    """Affine normalizers of all groups modulo the group itself as flat arrays; see ``normalizer.Normalizer``.

    Elements of a group stand in one row: proper linear parts (the identity first), pure shifts (zero first),
    and for the Sohncke groups one improper map onto the mirror-image group. ``element_start`` holds the
    offsets by group, ``entry_start`` those of the (element, position) entries.
    """
    raw = _load_arrays("normalizers.npz")
    tables: dict[str, np.ndarray] = {
        name: raw[name] / 48.0 for name in ("shifts", "map_linear", "map_shift", "directions")
    }
    for name in (
        "linear",
        "functionals",
        "permutations",
        "mirror_partner",
        "num_linear",
        "num_shifts",
        "num_directions",
    ):
        tables[name] = raw[name].astype(np.int64)
    num_positions = np.diff(group_arrays()["position_start"])
    num_elements = tables["num_linear"] + tables["num_shifts"] + (tables["mirror_partner"] > 0)
    tables["element_start"] = starts(num_elements)
    tables["entry_start"] = starts(num_elements * num_positions)
    tables["direction_start"] = starts(tables["num_directions"])
    for array in tables.values():
        array.setflags(write=False)
    return tables
