"""Soft physics of bonds: how far the bond valence sums of the atoms are from their oxidation states."""

from __future__ import annotations

from functools import cache, lru_cache

import torch
from torch import Tensor

from nucleate.crystal.batch import CrystalBatch
from nucleate.physics.bond_valence import SOFTNESS, bond_valence_table
from nucleate.physics.charge import assign_oxidation_states
from nucleate.processes.penalties import PairSearch, Penalty, compositions, per_atom
from nucleate.shapes import Float

BOND_RADIUS = 1.7
"""How far the pairs must reach, in units of (volume per atom)^(1/3): bonds beyond have valences of some hundredths."""

LEAST_VALENCE = 0.1
"""Added to sums and states, so that an atom without any bond is penalised as much as it should be and no more."""

_MOST_EXPONENT = 6.0  # atoms on top of each other: a valence of e^6 is as impossible as any larger one


def bond_valence_penalty_of(template: CrystalBatch, search: PairSearch) -> Penalty:
    """``bond_valence_penalty`` of crystals with the elements of a template, whose states are looked up once."""
    states = _orbit_states(template)

    def penalty(crystals: CrystalBatch) -> Tensor:
        return _penalty(crystals, search, states)

    return penalty


def bond_valence_penalty(crystals: CrystalBatch, search: PairSearch) -> Float[Tensor, "crystals"]:
    """Mean over all atoms of ``ln^2((V_i + e) / (|o_i| + e))``; 0 where atoms are bonded as their states ask.

        V_i = sum_j exp((R_ij - d_ij) / 0.31 Å)    over images j of opposite charge

    with ``o_i`` the mean oxidation state of the element in the most plausible neutral assignment
    (``physics.charge``), ``R_ij`` of ``physics.bond_valence`` and e = ``LEAST_VALENCE``. The logarithm makes it close
    to the square of an error in length. Crystals of one element, alloys, and those without a neutral assignment or
    with an element that has no parameters get 0.

    Args:
        crystals: differentiated in their coordinates and cells.
        search: finds all pairs within ``BOND_RADIUS`` at least.

    Source: I. D. Brown, Chem. Rev. 109 (2009) 6858; parameters of O'Keeffe and Brese (1991).
    """
    return _penalty(crystals, search, _orbit_states(crystals))


def _penalty(crystals: CrystalBatch, search: PairSearch, states: Tensor) -> Tensor:
    pairs = search(crystals)
    z = crystals.atomic_numbers
    opposite = states[pairs.target] * states[pairs.source] < 0
    target, source = pairs.target[opposite], pairs.source[opposite]
    length = _lengths(crystals.device, crystals.dtype)[z[target], z[source]]
    valence = torch.exp(((length - pairs.distances[opposite]) / SOFTNESS).clamp(max=_MOST_EXPONENT))
    sums = valence.new_zeros(len(z)).index_add(0, target, valence)
    ratio = (sums + LEAST_VALENCE) / (states.abs() + LEAST_VALENCE)
    return per_atom(crystals, torch.where(states == 0, 0.0, ratio.log() ** 2))


@cache
def _lengths(device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.tensor(bond_valence_table().lengths.copy()).to(device, dtype)


def _orbit_states(crystals: CrystalBatch) -> Float[Tensor, "orbits"]:
    """Oxidation state of each orbit's element, 0 for all of a crystal of which nothing can be said."""
    by_crystal = [_states_of(tuple(sorted(composition.items()))) for composition in compositions(crystals)]
    crystal, elements = crystals.orbit_to_crystal.tolist(), crystals.atomic_numbers.tolist()
    states = [by_crystal[k].get(z, 0.0) for k, z in zip(crystal, elements)]
    return torch.tensor(states).to(crystals.lattice_params)


@lru_cache(maxsize=100_000)
def _states_of(composition: tuple[tuple[int, int], ...]) -> dict[int, float]:
    lengths = bond_valence_table().lengths
    elements = [z for z, _ in composition]
    if any(z >= len(lengths) or lengths[z, z] != lengths[z, z] for z in elements):
        return {}
    best = assign_oxidation_states(dict(composition), max_assignments=1).best
    return {} if best is None else best.mean_states()
