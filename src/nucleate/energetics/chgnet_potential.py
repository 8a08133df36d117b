"""CHGNet, the default potential: its weights come with the package and many crystals go through one call."""

from __future__ import annotations

import contextlib
import hashlib
import io
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from nucleate.crystal.convert import unit_cell_to_pymatgen
from nucleate.crystal.unit_cell import UnitCell
from nucleate.energetics.potential import Evaluation
from nucleate.errors import PotentialError

MAX_ATOMIC_NUMBER = 94
UNTRAINED = {84: "Po", 85: "At", 86: "Rn", 87: "Fr", 88: "Ra"}
"""Elements that CHGNet has a row for but never saw: MPtrj holds the other 89 up to Pu."""


class CHGNetPotential:
    """CHGNet (Deng et al., Nature Machine Intelligence 5, 1031 (2023)), batched.

    Energies are those of its training labels: GGA and GGA+U of the Materials Project *with* the corrections of
    ``MaterialsProject2020Compatibility`` (anions, mixing of GGA and GGA+U). They compare with each other and with
    corrected Materials Project energies; nothing may be corrected again.

    Forces and stress come from one backward pass through the energy, ``F = -dE/df A^-T`` and
    ``stress = A^T dE/dA / V`` (f fractional coordinates, A lattice rows), on the public call that returns
    energies. CHGNet's own ``predict_structure`` gives the same numbers and also builds the graph of second
    derivatives, which training needs and which doubles the time.

    Args:
        model: name of the shipped weights: ``0.3.0`` or ``r2scan`` (0.2.0 is deprecated by its authors).
        device: torch device.

    Raises:
        PotentialError: chgnet is not installed, or no such weights.
    """

    name = "chgnet"

    def __init__(self, model: str = "0.3.0", *, device: str = "cpu") -> None:
        try:
            from chgnet.model import CHGNet  # noqa: PLC0415  an extra
        except ModuleNotFoundError as error:
            raise PotentialError("CHGNet is not installed: pip install nucleate[evaluate]") from error
        if model not in ("0.3.0", "r2scan"):
            raise PotentialError(f"CHGNet ships the weights 0.3.0 and r2scan, got {model!r}")
        with contextlib.redirect_stdout(io.StringIO()):  # it prints its number of parameters
            self._model: Any = CHGNet.load(model_name=model, use_device=device, verbose=False)
        self._model.eval()
        for parameter in self._model.parameters():
            parameter.requires_grad_(False)
        self._device = device
        self.identity = f"chgnet weights {model} {_digest(self._model)}"
        self.corrections = "MP2020" if model == "0.3.0" else "none (r2SCAN)"

    def evaluate(self, cells: Sequence[UnitCell]) -> list[Evaluation]:
        """Evaluations of the cells from one forward and one backward pass, float32.

        Raises:
            ValueError: from the graph converter, for an atom with no other within 6 Å.
        """
        results: list[Evaluation | None] = [_refusal(cell) for cell in cells]
        places = [i for i, result in enumerate(results) if result is None]
        if places:
            for i, evaluation in zip(places, self._evaluate_known([cells[i] for i in places])):
                results[i] = evaluation
        return [result for result in results if result is not None]

    def _evaluate_known(self, cells: Sequence[UnitCell]) -> list[Evaluation]:
        graphs = [self._model.graph_converter(unit_cell_to_pymatgen(cell)) for cell in cells]
        if self._device != "cpu":
            graphs = [self._on_device(graph) for graph in graphs]
        counts = torch.tensor([cell.num_atoms for cell in cells], device=self._device)
        with (
            warnings.catch_warnings()
        ):  # it makes plain numbers of the volumes, which nothing here differentiates
            warnings.filterwarnings("ignore", "Converting a tensor with requires_grad=True", UserWarning)
            energies = self._model(graphs, task="e")["e"] * counts  # the model gives eV/atom
        inputs = [graph.atom_frac_coord for graph in graphs] + [graph.lattice for graph in graphs]
        gradients = [g.double().cpu().numpy() for g in torch.autograd.grad(energies.sum(), inputs)]
        evaluations = []
        for i, (cell, energy) in enumerate(zip(cells, energies.tolist())):
            forces = -gradients[i] @ np.linalg.inv(cell.lattice).T
            virial = cell.lattice.T @ gradients[len(cells) + i]
            evaluations.append(Evaluation(energy, forces, (virial + virial.T) / (2 * cell.volume)))
        return evaluations

    def _on_device(self, graph: Any) -> Any:
        graph = graph.to(self._device)
        # moved tensors are no leaves: the gradient is taken with respect to them
        graph.atom_frac_coord = graph.atom_frac_coord.detach().requires_grad_()
        graph.lattice = graph.lattice.detach().requires_grad_()
        return graph


def _digest(model: Any) -> str:
    """Hash of the weights, which decide the numbers whatever version of the package reads them."""
    state = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(model.state_dict().items()):
        state.update(name.encode())
        state.update(tensor.detach().cpu().numpy().tobytes())
    return state.hexdigest()


def _refusal(cell: UnitCell) -> Evaluation | None:
    unknown = sorted({int(z) for z in cell.atomic_numbers if z > MAX_ATOMIC_NUMBER or int(z) in UNTRAINED})
    if not unknown:
        return None
    return Evaluation.failed(
        cell,
        f"CHGNet was trained on 89 elements up to Pu; atomic numbers {unknown} are not among them",
    )
