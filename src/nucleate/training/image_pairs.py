"""Pairs of atoms near enough to matter to a penalty."""

from __future__ import annotations

from nucleate.crystal.batch import CrystalBatch
from nucleate.models.graph import OrbitGraph, orbit_graph
from nucleate.processes.penalties import PAIR_RADIUS


def image_pairs(crystals: CrystalBatch, *, radius: float = PAIR_RADIUS) -> OrbitGraph:
    """Every image within the radius of every representative, with differentiable distances.

    Args:
        crystals: their coordinates and cells may be differentiated.
        radius: in units of each crystal's (volume per atom)^(1/3).
    """
    return orbit_graph(crystals, crystals.atoms(), radius=radius)
