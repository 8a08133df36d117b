"""Mass density from composition and volume, and the bounds outside which a crystal is not believed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nucleate.crystal.elements import mass_density
from nucleate.errors import InvalidStructureError
from nucleate.physics.composition import composition_counts

MINIMUM_DENSITY = 0.5
MAXIMUM_DENSITY = 25.0


@dataclass(frozen=True)
class DensityCheck:
    """Outcome of :func:`check_density`: the density, the bounds it was held against, and a sentence.

    Attributes:
        density: g/cm³.
        minimum: lower bound, g/cm³.
        maximum: upper bound, g/cm³.
    """

    density: float
    minimum: float
    maximum: float

    @property
    def ok(self) -> bool:
        """Whether the density lies inside the bounds, both included; NaN does not."""
        return self.minimum <= self.density <= self.maximum

    @property
    def reason(self) -> str:
        """Why the check failed, in one sentence; empty when it passed."""
        if self.ok:
            return ""
        if math.isnan(self.density):
            return "The density is not a number."
        side, bound = ("below", self.minimum) if self.density < self.minimum else ("above", self.maximum)
        return f"The density of {self.density:.4g} g/cm³ is {side} {bound:g} g/cm³."


def density(composition: object, volume: float) -> float:
    """Mass density in g/cm³ of the atoms in ``composition`` filling ``volume`` Å³.

    Args:
        composition: as :func:`nucleate.physics.composition.composition_counts`, all atoms of the cell.
        volume: volume in Å³ that these atoms fill.

    Raises:
        InvalidStructureError: the volume is not a positive number.
    """
    if not (math.isfinite(volume) and volume > 0):
        raise InvalidStructureError(f"A density needs a positive volume, got {volume} Å³.")
    return mass_density(composition_counts(composition), volume)


def check_density(
    density: float, *, minimum: float = MINIMUM_DENSITY, maximum: float = MAXIMUM_DENSITY
) -> DensityCheck:
    """Whether a density in g/cm³ is one a solid can have: 0.5 (below solid lithium) to 25 (above osmium)."""
    return DensityCheck(float(density), minimum, maximum)
