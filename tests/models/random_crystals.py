"""Crystals of every family and small networks with random weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from nucleate.crystal import Crystal, CrystalBatch, space_group
from nucleate.models.orbit_transformer import NoisyCrystals, OrbitTransformer, OrbitTransformerConfig

SMALL = OrbitTransformerConfig(
    scalars=16, vectors=8, hidden=16, layers=3, heads=2, num_basis=8, num_sources=2
)

BRANCHED = replace(SMALL, reciprocal=6, reciprocal_radius=1.6, coarse=8, tensors=4)

# every crystal family, all centrings, polar, chiral and rhombohedral groups among them
GROUPS = [
    1,
    2,
    5,
    9,
    14,
    19,
    36,
    43,
    62,
    70,
    82,
    88,
    92,
    99,
    121,
    141,
    146,
    152,
    160,
    166,
    173,
    194,
    198,
    216,
    227,
]


def random_crystal(number: int, seed: int = 0) -> Crystal:
    """A crystal with up to three orbits, special positions first."""
    rng = np.random.default_rng([number, seed])
    group = space_group(number)
    positions = sorted(range(len(group.letters)), key=lambda i: group.wyckoff_positions[i].multiplicity)
    chosen = [positions[0], positions[len(positions) // 2]] if len(positions) > 1 else [0, 0]
    if group.wyckoff_positions[positions[-1]].multiplicity_primitive <= 12:
        chosen.append(positions[-1])
    if len(chosen) > 1 and chosen[0] == chosen[1] and group.wyckoff_positions[chosen[0]].num_free == 0:
        chosen = chosen[1:]
    free = np.zeros((len(chosen), 3))
    for row, index in zip(free, chosen):
        d = group.wyckoff_positions[index].num_free
        row[:d] = rng.uniform(0.05, 0.95, d)
    params = rng.normal(0, 0.08, group.lattice_subspace.num_params)
    params[0] = np.log(16.0) / 3**0.5
    return Crystal(number, params, np.array(chosen), rng.integers(3, 80, len(chosen)), free)


def network(seed: int = 0, config: OrbitTransformerConfig = SMALL) -> OrbitTransformer:
    """A small network in double precision with every weight random, the zero-initialised ones too."""
    torch.manual_seed(seed)
    model = OrbitTransformer(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(
                torch.randn_like(parameter) * (parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.1)
            )
    return model


def noisy(crystals: list[Crystal], dtype: torch.dtype = torch.float64) -> NoisyCrystals:
    """The crystals with some noise levels."""
    n = len(crystals)
    time = torch.linspace(0.1, 0.9, n, dtype=dtype)
    batch = CrystalBatch.from_crystals(crystals, dtype=dtype)
    return NoisyCrystals(batch, time, time.flip(0), torch.ones(n, dtype=torch.int64))
