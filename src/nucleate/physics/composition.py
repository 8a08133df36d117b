"""Compositions as whole numbers of atoms by atomic number: the form every function here works on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from nucleate.errors import InvalidStructureError
from nucleate.physics.elements import NUM_ELEMENTS, atomic_number


def composition_counts(composition: object) -> dict[int, int]:
    """Atoms of each element, ``{atomic number: count}``, ascending and not reduced.

    Args:
        composition: a mapping from symbol or atomic number to a whole amount (pymatgen's ``Composition`` is
            one, its elements are read by symbol), or a flat sequence of atomic numbers, one per atom.

    Raises:
        InvalidStructureError: no atoms, an amount that is not a whole positive number, or an unknown element.
    """
    counts: dict[int, int] = {}
    if isinstance(composition, Mapping):
        for key, amount in composition.items():
            whole = round(float(amount)) if math.isfinite(float(amount)) else 0
            if whole < 1 or abs(whole - float(amount)) > 1e-6:
                raise InvalidStructureError(
                    f"The amount of {key} is {amount}; amounts are whole atoms, multiply the formula up."
                )
            z = _number_of(key)
            counts[z] = counts.get(z, 0) + whole
    elif isinstance(composition, Iterable) and not isinstance(composition, str):
        numbers = np.asarray(list(composition) if not isinstance(composition, np.ndarray) else composition)
        if numbers.size and (numbers.ndim != 1 or numbers.dtype.kind not in "iu"):
            raise InvalidStructureError(
                f"Atomic numbers are a flat list of integers, got shape {numbers.shape} of {numbers.dtype}."
            )
        values, amounts = np.unique(numbers, return_counts=True)
        counts = {_number_of(int(z)): int(amount) for z, amount in zip(values, amounts)}
    else:
        raise InvalidStructureError(
            f"A composition maps elements to amounts or lists atomic numbers, got {composition!r}."
        )
    if not counts:
        raise InvalidStructureError("The composition holds no atoms.")
    return dict(sorted(counts.items()))


def reduced_counts(composition: object) -> dict[int, int]:
    """Atoms of each element in the smallest formula unit of whole numbers."""
    counts = composition_counts(composition)
    divisor = math.gcd(*counts.values())
    return {z: amount // divisor for z, amount in counts.items()}


def _number_of(key: object) -> int:
    if isinstance(key, (int, np.integer)):
        z = int(key)
    else:
        z = atomic_number(getattr(key, "symbol", key))  # type: ignore[arg-type]
    if not 1 <= z <= NUM_ELEMENTS:
        raise InvalidStructureError(f"Element data exist for atomic numbers 1 to {NUM_ELEMENTS}, got {z}.")
    return z
