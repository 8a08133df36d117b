"""Elements exchanged for similar ones while templates are learned, so that few crystals are not learned by heart."""

from __future__ import annotations

import functools

import numpy as np

from nucleate.physics.elements import NUM_ELEMENTS, element_features, oxidation_states
from nucleate.shapes import Float, Int

SMALL_DATA = 100
"""Training crystals up to which elements are exchanged by default."""

SMALL_DATA_SHARE = 0.7
"""Share of their templates with exchanged elements; measured on ten crystals (docs/generator-benchmarks.md)."""

NEAR = 3
"""The neighbour half of whose distance is how far an element's similarity reaches."""

EXCHANGED = 0.5
"""Chance that an element of such a template is exchanged, for each element by itself."""

_UNSTABLE = (43, 61, *range(84, 90), 91, *range(93, NUM_ELEMENTS + 1))


@functools.cache
def exchange_probabilities() -> Float[np.ndarray, "elements elements"]:
    """Row z - 1: what element z is exchanged for; a row of zeros where nothing is like it.

    ``p(z -> w) ~ exp(-d(z, w)^2 / 2 s_z^2)`` over the elements w that share a common oxidation state with z, so that
    charges stay balanced, and have stable or long-lived isotopes; d is the distance of the standardised element vectors
    (``physics.element_features``) and s_z half of that of the third nearest such element.
    """
    numbers = np.arange(1, NUM_ELEMENTS + 1)
    vectors = element_features(numbers)
    distance = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
    states = [set(oxidation_states(int(z))) for z in numbers]
    allowed = np.array([[bool(mine & other) for other in states] for mine in states])
    allowed[:, np.array(_UNSTABLE) - 1] = False
    np.fill_diagonal(allowed, False)
    distance = np.where(allowed, distance, np.inf)
    reach = 0.5 * np.sort(distance, axis=1)[:, NEAR - 1]
    reach = np.where(np.isfinite(reach), reach, np.nanmedian(np.where(np.isfinite(reach), reach, np.nan)))
    weights = np.exp(-0.5 * (distance / reach[:, None]) ** 2)
    total = weights.sum(axis=1, keepdims=True)
    return np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)


def exchange_elements(
    atomic_numbers: Int[np.ndarray, "orbits"], rng: np.random.Generator
) -> Int[np.ndarray, "orbits"]:
    """The elements of the orbits with some exchanged for similar ones, different ones staying different."""
    exchanged = atomic_numbers.copy()
    present = set(atomic_numbers.tolist())
    for z in sorted(present):
        if rng.random() >= EXCHANGED:
            continue
        chances = exchange_probabilities()[z - 1].copy()
        chances[[other - 1 for other in present]] = 0
        if chances.sum() > 0:
            new = int(rng.choice(NUM_ELEMENTS, p=chances / chances.sum())) + 1
            exchanged[atomic_numbers == z] = new
            present = (present - {z}) | {new}
    return exchanged
