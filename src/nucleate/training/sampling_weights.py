"""How often crystals are drawn while training: by their data source and by their number of free coordinates."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nucleate.crystal.batch import CrystalBatch
from nucleate.errors import ConfigError
from nucleate.shapes import Float, Int

_FREE_COORDS = re.compile(r"free_coords:(\d+)(?:\.\.(\d*))?")
_EXAMPLE = "expected lines such as mp_20=2 (a data source), free_coords:3..8=1.5 or free_coords:9..=2"


@dataclass(frozen=True)
class SamplingWeights:
    """Factors on how often a crystal comes in an epoch; all that apply are multiplied.

    Attributes:
        by_source: factor of each data source by name.
        by_free_coords: (fewest, most, factor) of crystals by the number of free coordinates of all their orbits; most
            None where there is no limit.
    """

    by_source: Mapping[str, float]
    by_free_coords: tuple[tuple[int, int | None, float], ...] = ()

    @classmethod
    def parse(cls, lines: Sequence[str]) -> SamplingWeights:
        """The weights of lines such as ``mp_20=2``, ``free_coords:0=0.5`` or ``free_coords:3..8=1.5``.

        Raises:
            ConfigError: a line that says something else, or a negative weight.
        """
        sources: dict[str, float] = {}
        ranges: list[tuple[int, int | None, float]] = []
        for line in lines:
            what, equals, number = (part.strip() for part in line.rpartition("="))
            try:
                weight = float(number)
            except ValueError:
                weight = -1.0
            if not (equals and what and 0 <= weight < float("inf")):
                raise ConfigError(f"The sampling weight {line!r} cannot be read; {_EXAMPLE}")
            if what.startswith("free_coords:"):
                found = _FREE_COORDS.fullmatch(what)
                if found is None:
                    raise ConfigError(f"The sampling weight {line!r} cannot be read; {_EXAMPLE}")
                low, high = found.groups()
                ranges.append((int(low), int(low) if high is None else int(high) if high else None, weight))
            else:
                sources[what] = weight
        return cls(sources, tuple(ranges))

    def check_sources(self, known: Sequence[str]) -> None:
        """Whether every source that has a weight is one of the known ones.

        Raises:
            ConfigError: one is not; the nearest known one is named.
        """
        for name in self.by_source:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
                near = f"; the nearest known one is {close[0]!r}" if close else ""
                raise ConfigError(f"sampling_weights names the data source {name!r}, which is unknown{near}")

    def of(
        self, crystals: CrystalBatch, source: Int[Tensor, "crystals"], tokens: Mapping[str, int]
    ) -> Float[Tensor, "crystals"]:
        """Expected number of times that each crystal comes in an epoch.

        Args:
            crystals: the crystals.
            source: data source token of each.
            tokens: token of each source by name.
        """
        weights = torch.ones(len(crystals), dtype=torch.float64)
        for name, weight in self.by_source.items():
            weights[source == tokens[name]] *= weight
        free = torch.zeros(len(crystals), dtype=torch.int64)
        free.index_add_(0, crystals.orbit_to_crystal, crystals.num_free)
        for low, high, weight in self.by_free_coords:
            inside = free >= low if high is None else (free >= low) & (free <= high)
            weights[inside] *= weight
        return weights
