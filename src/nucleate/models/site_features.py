"""Invariant inputs: what an orbit's site symmetry is, and what its crystal is, without letters."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from nucleate.crystal.batch import CrystalBatch
from nucleate.crystal.tables import group_arrays, group_names, normalizer_arrays
from nucleate.shapes import Float, Int

# (determinant, trace) of the ten kinds of crystallographic operations: 1 2 3 4 6 -1 m -3 -4 -6
_KINDS = [(1, 3), (1, -1), (1, 0), (1, 1), (1, 2), (-1, -3), (-1, 1), (-1, 0), (-1, -1), (-1, -2)]
NUM_SITE_FEATURES = len(_KINDS) + 6
NUM_CRYSTAL_FEATURES = 12
_SYSTEMS = ("triclinic", "monoclinic", "orthorhombic", "tetragonal", "trigonal", "hexagonal", "cubic")


@cache
def position_features(device: torch.device, dtype: torch.dtype) -> Tensor:
    """Per Wyckoff position: log counts of the operations in S_w by kind, free coordinates (one-hot), log m."""
    tables = group_arrays()
    rotations = tables["rotations"]
    kind = np.array([_KINDS.index((round(np.linalg.det(W)), int(np.trace(W)))) for W in rotations])
    rows = np.zeros((len(tables["num_free"]), NUM_SITE_FEATURES))
    for p in range(len(rows)):
        members = tables["stabiliser"][tables["stabiliser_start"][p] : tables["stabiliser_start"][p + 1]]
        first = tables["operation_start"][tables["position_group"][p] - 1]
        rows[p, : len(_KINDS)] = np.log1p(np.bincount(kind[members + first], minlength=len(_KINDS)))
        rows[p, len(_KINDS) + tables["num_free"][p]] = 1
        rows[p, -2] = np.log(tables["num_images"][p])
    return torch.tensor(rows).to(device, dtype)


@cache
def _group_features(device: torch.device, dtype: torch.dtype) -> Tensor:
    """Per group (row 0 unused): crystal system (one-hot), log order, centrosymmetric, polar, chiral."""
    rows = np.zeros((231, NUM_CRYSTAL_FEATURES - 1))
    tables, polar = group_arrays(), normalizer_arrays()
    for number, entry in enumerate(group_names(), start=1):
        operations = tables["rotations"][
            tables["operation_start"][number - 1] : tables["operation_start"][number]
        ]
        rows[number, _SYSTEMS.index(entry["crystal_system"])] = 1
        rows[number, 7] = np.log(len(operations))
        rows[number, 8] = (operations == -np.eye(3)).all(axis=(1, 2)).any()
        rows[number, 9] = polar["num_directions"][number - 1]
        rows[number, 10] = (np.linalg.det(operations) > 0).all()
    return torch.tensor(rows).to(device, dtype)


def site_features(batch: CrystalBatch) -> Float[Tensor, "orbits site"]:
    """Site symmetry (counts of each kind of operation), free coordinates, multiplicity, share of the cell."""
    features = position_features(batch.device, batch.dtype)[batch.position_ids].clone()
    share = batch.multiplicities / batch.num_atoms_primitive[batch.orbit_to_crystal]
    features[:, -1] = share.to(batch.dtype)
    return features


def crystal_features(batch: CrystalBatch) -> Float[Tensor, "crystals group"]:
    """Crystal system, order and kind of the point group, and log number of atoms of the primitive cell."""
    features = _group_features(batch.device, batch.dtype)[batch.space_group_number]
    return torch.cat([features, batch.num_atoms_primitive.to(batch.dtype).log()[:, None]], dim=1)


@cache
def _mirror_classes(device: torch.device) -> Tensor:
    """Group number with enantiomorphic partners merged: a crystal and its mirror image look the same."""
    partner = normalizer_arrays()["mirror_partner"]
    numbers = np.arange(1, 231)
    merged = np.where(partner > 0, np.minimum(partner, numbers), numbers)
    return torch.tensor(np.concatenate([[0], merged]), dtype=torch.int64, device=device)


def group_class(batch: CrystalBatch) -> Int[Tensor, "crystals"]:
    """Space group number modulo mirror image."""
    return _mirror_classes(batch.device)[batch.space_group_number]
