"""Projectors onto what symmetry leaves free: where an orbit may move, and which directions a crystal has."""

from __future__ import annotations

import torch
from torch import Tensor

from nucleate.crystal.batch import CrystalBatch
from nucleate.shapes import Float


def tangent_projectors(crystals: CrystalBatch) -> Float[Tensor, "orbits 3 3"]:
    """Orthogonal projectors onto the Cartesian tangent space of each orbit's Wyckoff position."""
    frame = (
        crystals.lattices().mT[crystals.orbit_to_crystal] @ crystals.tables["basis"][crystals.position_ids]
    )
    unused = torch.arange(3, device=crystals.device) >= crystals.num_free[:, None]
    normal = frame.mT @ frame + torch.diag_embed(unused.to(frame.dtype))
    return frame @ torch.linalg.solve(normal, frame.mT)


def invariant_directions(crystals: CrystalBatch) -> Float[Tensor, "crystals 3 3"]:
    """Mean over the point group of the Cartesian operations: the projector onto the polar directions."""
    means = crystals.tables["mean_rotations"][crystals.space_group_number - 1]
    columns = crystals.lattices().mT
    return columns @ means @ torch.linalg.inv(columns)
