"""How good samples are while training goes on: on validation templates, without matching anything."""

from __future__ import annotations

import torch
from torch import Tensor

from nucleate.crystal.batch import CrystalBatch
from nucleate.models.graph import image_pairs
from nucleate.models.orbit_transformer import NoisyCrystals, OrbitTransformer
from nucleate.processes.choice import ProcessChoice
from nucleate.processes.geometry_process import DenoisedGeometry, GeometryNoise
from nucleate.processes.penalties import PAIR_RADIUS, distance_penalty
from nucleate.processes.sampler import sample_geometry
from nucleate.training.crystal_stream import SourcedCrystals


@torch.no_grad()
def sample_quality(
    network: OrbitTransformer,
    choice: ProcessChoice,
    content: SourcedCrystals,
    *,
    seed: int,
    steps: int,
) -> dict[str, float]:
    """Figures of one sample on each template of stored crystals, from the same noise every time.

    ``valid``: share of samples without two atoms nearer than those elements come in real crystals; ``overlap``: mean of
    the penalty on such pairs; ``volume_error``: mean ``|ln V - ln V_stored|``, V the volume per atom.
    """
    templates, source = content.crystals, content.source
    streams = [torch.Generator().manual_seed(seed * 1_000_003 + i) for i in range(len(content))]

    def denoise(crystals: CrystalBatch, coord_level: Tensor, lattice_level: Tensor) -> DenoisedGeometry:
        return network(NoisyCrystals(crystals, coord_level, lattice_level, source))

    made = sample_geometry(
        choice.process,
        templates,
        denoise,
        noise=GeometryNoise.draw_by_crystal(templates, streams),
        steps=steps,
        solver=choice.solver,
        schedule=choice.schedule,
        streams=streams,
        lattice_variance=choice.lattice_variance,
    )
    overlap = distance_penalty(made, image_pairs(made, radius=PAIR_RADIUS))
    error = (made.volume_per_atom.log() - templates.volume_per_atom.log()).abs()
    return {
        "valid": float((overlap == 0).double().mean()),
        "overlap": float(overlap.double().mean()),
        "volume_error": float(error.double().mean()),
    }
