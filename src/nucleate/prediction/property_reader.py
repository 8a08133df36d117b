"""Scalar properties of crystals, by the head that was trained with the geometry network."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from nucleate.crystal.batch import CrystalBatch
from nucleate.crystal.crystal import Crystal
from nucleate.errors import CheckpointError
from nucleate.models.checkpoint import Checkpoint, load_checkpoint
from nucleate.models.property_head import pooled_features
from nucleate.shapes import Float

CRYSTALS_AT_ONCE = 64
"""Crystals in one pass of the network."""


class PropertyReader:
    """Reads properties off crystals, without noise, as training with ``properties`` taught it.

    Attributes:
        names: properties, in the order of the columns of ``read``.
        units: unit of each, empty where the training data state none.

    Args:
        checkpoint: with a geometry network and a property head.
        device: where they run.
        name: what the weights are called in errors.

    Raises:
        CheckpointError: there is no property head.
    """

    def __init__(
        self, checkpoint: Checkpoint, *, device: torch.device | str = "cpu", name: str = "given"
    ) -> None:
        if checkpoint.geometry is None or checkpoint.properties is None:
            raise CheckpointError(
                f"The weights {name} read no properties: add a head that does (`nucleate train STORE --init WEIGHTS "
                "--part properties --properties band_gap`, with a store that has them)"
            )
        self.device = torch.device(device)
        self.network = checkpoint.geometry.to(self.device).eval()
        self.head = checkpoint.properties.to(self.device).eval()
        self.names, self.units = self.head.config.names, self.head.config.units

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, device: torch.device | str = "cpu") -> PropertyReader:
        """The reader in a file of weights.

        Raises:
            CheckpointError: there are no weights, they do not fit, or read no properties.
        """
        return cls(load_checkpoint(path, device=device), device=device, name=os.fspath(path))

    def predict(self, crystals: Sequence[Crystal]) -> dict[str, Float[np.ndarray, "crystals"]]:
        """Every property of every crystal, by name, in ``units``."""
        found = []
        for first in range(0, len(crystals), CRYSTALS_AT_ONCE):
            some = list(crystals[first : first + CRYSTALS_AT_ONCE])
            with torch.no_grad():
                found.append(self.read(CrystalBatch.from_crystals(some, dtype=torch.float32).to(self.device)))
        table = torch.cat(found).cpu().double().numpy() if found else np.zeros((0, len(self.names)))
        return dict(zip(self.names, table.T, strict=True))

    def read(self, crystals: CrystalBatch) -> Float[Tensor, "crystals properties"]:
        """The same of a batch, differentiable in its ``free_coords`` and ``lattice_params``.

        So a function of it can be the ``module:function`` of a guidance, which leads sampling to crystals with a wanted
        value.
        """
        return self.head(pooled_features(self.network, crystals))
