"""Any model with torch-sim's interface as a potential: many crystals in one call, on a CPU or a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from nucleate.crystal.unit_cell import UnitCell
from nucleate.energetics.potential import Evaluation
from nucleate.errors import PotentialError
from nucleate.physics import element_values


def is_torch_sim_model(thing: object) -> bool:
    """Whether an object is a model of torch-sim; torch-sim is not loaded to find out."""
    return any(
        base.__name__ == "ModelInterface" and base.__module__.partition(".")[0] == "torch_sim"
        for base in type(thing).__mro__
    )


class TorchSimPotential:
    """A model of torch-sim as a potential; its wrappers of MACE, ORB, SevenNet, MatterSim and others are such models.

    torch-sim keeps cell vectors in columns and stacks the atoms of all crystals with the number of their crystal.
    Stress has ASE's sign: ``(1/V) dE/d(strain)``, positive under tension.

    Source: Cohen et al., TorchSim (2025).

    Args:
        model: the model, on the device and in the type it is to work in.
        identity: what names its numbers in caches and reports; two models whose numbers differ must differ here.
        name: short name for tables.
        corrections: empirical corrections in its energies, if known.

    Raises:
        PotentialError: the model was made without forces or stress.
    """

    def __init__(
        self, model: Any, *, identity: str, name: str = "torch-sim", corrections: str = "none known"
    ) -> None:
        missing = [what for what in ("forces", "stress") if not getattr(model, f"compute_{what}")]
        if missing:
            raise PotentialError(
                f"The model {type(model).__name__} does not compute {' and '.join(missing)}: make it with "
                f"{', '.join(f'compute_{what}=True' for what in missing)}"
            )
        self._model = model
        self.identity = identity
        self.name = name
        self.corrections = corrections

    def evaluate(self, cells: Sequence[UnitCell]) -> list[Evaluation]:
        """Evaluations of the cells from one call of the model."""
        if not cells:
            return []
        out = self._model(self._state(cells))
        energy, forces, stress = (
            out[name].detach().double().cpu().numpy() for name in ("energy", "forces", "stress")
        )
        ends = np.cumsum([cell.num_atoms for cell in cells])
        return [
            Evaluation(float(energy[i]), forces[end - cell.num_atoms : end], (stress[i] + stress[i].T) / 2)
            for i, (cell, end) in enumerate(zip(cells, ends))
        ]

    def _state(self, cells: Sequence[UnitCell]) -> Any:
        from torch_sim.state import SimState  # noqa: PLC0415  installed by few

        model = self._model
        numbers = np.concatenate([cell.atomic_numbers for cell in cells])
        counts = [cell.num_atoms for cell in cells]

        def real(values: Any) -> torch.Tensor:
            return torch.tensor(np.asarray(values), dtype=model.dtype, device=model.device)

        return SimState(
            positions=real(np.concatenate([cell.frac_coords @ cell.lattice for cell in cells])),
            masses=real(element_values("atomic_mass", numbers.tolist())),
            cell=real(np.stack([cell.lattice.T for cell in cells])),
            pbc=True,
            atomic_numbers=torch.tensor(numbers, dtype=torch.int64, device=model.device),
            system_idx=torch.repeat_interleave(
                torch.arange(len(cells), device=model.device), torch.tensor(counts, device=model.device)
            ),
        )
