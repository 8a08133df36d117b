"""Networks that see what is not physics, or miss what is: negative controls.

Each changes ``OrbitTransformer`` for the time of a test.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from nucleate.crystal import CrystalBatch
from nucleate.models import layers, orbit_transformer, reciprocal
from nucleate.models.graph import OrbitGraph
from nucleate.models.orbit_transformer import OrbitTransformer


def images_carry_one_orientation(patch: pytest.MonkeyPatch) -> None:
    """Features of images are those of the representative, not rotated."""

    def unrotated(graph: OrbitGraph) -> OrbitGraph:
        eye = torch.eye(3, dtype=graph.rotations.dtype).expand_as(graph.rotations)
        return replace(graph, rotations=eye)

    _change_graph(patch, unrotated)


def one_image_per_pair(patch: pytest.MonkeyPatch) -> None:
    """Only the nearest image of every atom is a neighbour."""

    def nearest(graph: OrbitGraph) -> OrbitGraph:
        pair = graph.target * len(graph.rotations) + graph.atom
        order = torch.argsort(graph.distances, stable=True)
        order = order[torch.argsort(pair[order], stable=True)]
        first = torch.ones(len(order), dtype=torch.bool)
        first[1:] = pair[order][1:] != pair[order][:-1]
        kept = order[first]
        edges = ("target", "source", "atom", "vectors", "distances", "cutoffs")
        return replace(graph, **{name: getattr(graph, name)[kept] for name in edges})

    _change_graph(patch, nearest)


def a_fixed_axis(patch: pytest.MonkeyPatch) -> None:
    """A vector that does not turn with the crystal is added to the direction of every edge."""
    original = OrbitTransformer._edges

    def tilted(self: OrbitTransformer, *args):
        edges = original(self, *args)
        axis = torch.tensor([0.0, 0.0, 0.1], dtype=edges.directions.dtype)
        return replace(edges, directions=edges.directions + axis)

    patch.setattr(OrbitTransformer, "_edges", tilted)


def handed_products(patch: pytest.MonkeyPatch) -> None:
    """Cross products of vectors are added to the vectors: handedness is seen."""
    original = layers.vector_norm_rms

    def handed(vectors: torch.Tensor) -> torch.Tensor:
        unit = original(vectors)
        return unit if unit.shape[1] != 3 else unit + torch.cross(unit, unit.roll(1, dims=2), dim=1)

    patch.setattr(layers, "vector_norm_rms", handed)


def structure_factors_without_conjugate(patch: pytest.MonkeyPatch) -> None:
    """``F e^{iG.r}`` in place of ``F* e^{iG.r}``: the phase of the origin counts twice instead of not at all."""
    original = reciprocal.structure_factors

    def conjugate(*args):
        real, imaginary = original(*args)
        return real, -imaginary

    patch.setattr(reciprocal, "structure_factors", conjugate)


def sums_over_atoms(patch: pytest.MonkeyPatch) -> None:
    """Sublattices are sums over their atoms, not means."""
    original = orbit_transformer.coarse_levels

    def summed(batch: CrystalBatch, **edges):
        levels = original(batch, **edges)
        return replace(levels, orbit_share=batch.multiplicities.to(batch.dtype))

    patch.setattr(orbit_transformer, "coarse_levels", summed)


def letters_are_seen(patch: pytest.MonkeyPatch) -> None:
    """The index of the Wyckoff letter is one of the features of a site."""
    original = orbit_transformer.site_features

    def with_letters(batch: CrystalBatch):
        features = original(batch).clone()
        first = batch.tables["position_start"][batch.space_group_number - 1]
        features[:, 0] += 0.1 * (batch.position_ids - first[batch.orbit_to_crystal])
        return features

    patch.setattr(orbit_transformer, "site_features", with_letters)


def _change_graph(patch: pytest.MonkeyPatch, change) -> None:
    original = orbit_transformer.orbit_graph
    patch.setattr(orbit_transformer, "orbit_graph", lambda *args, **kw: change(original(*args, **kw)))
