"""Soft physics of whole batches, differentiable: distances, density, volume, and the energy of a pair potential.

Each function returns one number per crystal, 0 or low for what real crystals do. They serve as penalties in training
and as guidance in sampling.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from nucleate.crystal.batch import CrystalBatch
from nucleate.crystal.elements import atomic_mass
from nucleate.errors import ConfigError
from nucleate.physics.density import MAXIMUM_DENSITY, MINIMUM_DENSITY
from nucleate.physics.distances import minimum_distance_matrix
from nucleate.physics.elements import NUM_ELEMENTS
from nucleate.physics.volume import volumes_per_atom
from nucleate.shapes import Float, Int

PAIR_RADIUS = 1.3
"""How far the pairs must reach, in units of (volume per atom)^(1/3): beyond minimum distances at usual densities."""

REPULSION_RADIUS = 2.0
"""The same for the pair repulsion, which ends four decay lengths beyond them."""

VOLUME_SPREADS = 2.0
"""Standard deviations of the volume estimate within which a volume is not penalised."""

REPULSION_LENGTH = 0.35
"""Decay length of the pair repulsion, Å; Born and Mayer's for alkali halides."""

_AMU_PER_CUBIC_ANGSTROM = 1.66053906660  # g/cm³

Penalty = Callable[[CrystalBatch], Tensor]
"""crystals -> one number per crystal."""


@runtime_checkable
class ImagePairs(Protocol):
    """Pairs of an orbit's representative and a periodic image of an orbit, itself included; an ``OrbitGraph``."""

    @property
    def target(self) -> Int[Tensor, "pairs"]:
        """Orbit of the representative."""

    @property
    def source(self) -> Int[Tensor, "pairs"]:
        """Orbit of the image."""

    @property
    def distances(self) -> Float[Tensor, "pairs"]:
        """Å, differentiable."""

    @property
    def cutoffs(self) -> Float[Tensor, "pairs"]:
        """How far pairs of the same crystal were looked for, Å."""


PairSearch = Callable[[CrystalBatch], ImagePairs]
"""crystals -> all pairs within a radius."""


@cache
def _minimum_distances(device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.tensor(minimum_distance_matrix().copy()).to(device, dtype)


@cache
def _masses(device: torch.device, dtype: torch.dtype) -> Tensor:
    masses = [0.0, *(atomic_mass(z) for z in range(1, NUM_ELEMENTS + 1))]
    return torch.tensor(masses, dtype=torch.float64).to(device, dtype)


def per_atom(crystals: CrystalBatch, values: Float[Tensor, "orbits"]) -> Float[Tensor, "crystals"]:
    """Mean over all atoms of a value of each orbit."""
    crystal = crystals.orbit_to_crystal
    share = (crystals.multiplicities / crystals.num_atoms_primitive[crystal]).to(values.dtype)
    return values.new_zeros(len(crystals)).index_add(0, crystal, values * share)


def distance_penalty(crystals: CrystalBatch, pairs: ImagePairs) -> Float[Tensor, "crystals"]:
    """``sum over pairs max(0, 1 - d / d_min)^2`` per atom, images of the same orbit included.

    ``d_min`` is the smallest distance of the two elements in real crystals (``physics.distances``).
    """
    z = crystals.atomic_numbers
    minimum = _minimum_distances(crystals.device, crystals.dtype)[z[pairs.target], z[pairs.source]]
    excess = torch.relu(1 - pairs.distances / minimum) ** 2
    zeros = excess.new_zeros(len(z))
    return per_atom(crystals, zeros.index_add(0, pairs.target, excess))


def repulsion_energy(crystals: CrystalBatch, pairs: ImagePairs) -> Float[Tensor, "crystals"]:
    """Born-Mayer repulsion in eV per atom, each pair counted once: ``1/2 sum exp((d_min - d) / rho)``.

    A pair at the smallest distance of its elements in real crystals costs 1 eV and at a bond length little; ``rho`` is
    ``REPULSION_LENGTH``. Smoothly cut off at ``d_min + 4 rho``, or where the pairs end if that is nearer (very dense
    crystals, at ``REPULSION_RADIUS``). Source: Born & Mayer, Z. Physik 75, 1 (1932).
    """
    z = crystals.atomic_numbers
    minimum = _minimum_distances(crystals.device, crystals.dtype)[z[pairs.target], z[pairs.source]]
    beyond = (pairs.distances - minimum) / REPULSION_LENGTH
    width = ((pairs.cutoffs - minimum) / REPULSION_LENGTH).clamp(min=1e-3, max=4.0)
    window = torch.relu(1 - torch.relu(beyond / width) ** 2) ** 2
    energy = 0.5 * torch.exp(-beyond) * window
    return per_atom(crystals, energy.new_zeros(len(z)).index_add(0, pairs.target, energy))


def density_penalty(crystals: CrystalBatch) -> Float[Tensor, "crystals"]:
    """Square of how far the logarithm of the density lies outside 0.5 to 25 g/cm³ (``physics.density``)."""
    masses = _masses(crystals.device, crystals.dtype)[crystals.atomic_numbers]
    density = _AMU_PER_CUBIC_ANGSTROM * per_atom(crystals, masses) / crystals.volume_per_atom
    low, high = torch.relu((MINIMUM_DENSITY / density).log()), torch.relu((density / MAXIMUM_DENSITY).log())
    return low**2 + high**2


def volume_penalty(crystals: CrystalBatch) -> Float[Tensor, "crystals"]:
    """``max(0, |ln V - ln V_expected| / sigma - 2)^2`` for the volume per atom expected of each composition."""
    return volume_penalty_of(crystals)(crystals)


def volume_penalty_of(template: CrystalBatch) -> Penalty:
    """``volume_penalty`` of crystals with the compositions of a template, which are looked up once."""
    mean, std = _expected_log_volumes(template)

    def penalty(crystals: CrystalBatch) -> Tensor:
        spreads = (crystals.volume_per_atom.log() - mean).abs() / std
        return torch.relu(spreads - VOLUME_SPREADS) ** 2

    return penalty


def _expected_log_volumes(crystals: CrystalBatch) -> tuple[Tensor, Tensor]:
    estimates = volumes_per_atom(compositions(crystals))
    like = crystals.lattice_params
    return torch.as_tensor(np.log(estimates.mean)).to(like), torch.as_tensor(estimates.log_std).to(like)


def compositions(crystals: CrystalBatch) -> list[dict[int, int]]:
    """Atoms of each element, by atomic number, in the conventional cell of each crystal."""
    elements, counts = crystals.atomic_numbers.tolist(), crystals.multiplicities.tolist()
    found: list[dict[int, int]] = []
    begin = 0
    for size in crystals.num_orbits.tolist():
        composition: dict[int, int] = {}
        for z, m in zip(elements[begin : begin + size], counts[begin : begin + size]):
            composition[z] = composition.get(z, 0) + m
        found.append(composition)
        begin += size
    return found


def energy_function(name: str, search: PairSearch) -> Penalty:
    """The differentiable potential of a name: ``repulsion``, or ``module:function`` of anybody.

    A function of one's own takes a ``CrystalBatch`` and returns eV per atom for each crystal, differentiable in its
    ``free_coords`` and ``lattice_params``.

    Raises:
        ConfigError: there is no such function.
    """
    if name == "repulsion":
        return lambda crystals: repulsion_energy(crystals, search(crystals))
    module, _, attribute = name.partition(":")
    if not attribute:
        raise ConfigError(f"The energy {name!r} is neither repulsion nor of the form module:function")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"The energy {name!r} cannot be loaded ({error}): is its module importable?"
        ) from error
    if not callable(found):
        raise ConfigError(
            f"The energy {name!r} is a {type(found).__name__}, expected a function of a CrystalBatch"
        )
    return found
