"""Pairs of atoms near enough to matter to a penalty."""

from __future__ import annotations

from nucleate.crystal.batch import CrystalBatch
from nucleate.models.graph import OrbitGraph, orbit_graph
from nucleate.processes.penalties import PAIR_RADIUS


def image_pairs(crystals: CrystalBatch) -> OrbitGraph:
    """Every image within ``PAIR_RADIUS`` of every representative, with differentiable distances."""
    return orbit_graph(crystals, crystals.atoms(), radius=PAIR_RADIUS)
