"""The optimisers of a training: AdamW for everything, or Muon for the weight matrices and AdamW for the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import nn

from nucleate.training.muon import Muon

OptimiserName = Literal["adamw", "muon"]

BETAS = (0.9, 0.98)
"""Of AdamW."""

LEAST_SIDE = 16
"""Matrices with a shorter side than this have too few directions to be worth orthogonal steps."""


def make_optimiser(
    name: OptimiserName, modules: Iterable[nn.Module], *, learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """An optimiser of everything in the modules that is to be trained.

    ``muon`` moves each weight matrix M of a linear layer by the nearest orthogonal matrix to its (Nesterov) momentum,

        M -= 0.2 sqrt(max(rows, columns)) eta O,    G + 0.95 B = U S V^T,  O = U V^T  (by Newton-Schulz),

    so that steps are as large as AdamW's and one learning rate eta does for both. Embeddings, biases, heads with few
    outputs and everything that is not a matrix are left to AdamW.

    Source: K. Jordan et al., Muon (2024), kellerjordan.github.io/posts/muon; the scale of J. Liu et al.,
    arXiv:2502.16982 (2025).

    Args:
        name: which.
        modules: what holds the parameters; those that need no gradient are left out.
        learning_rate: eta.
        weight_decay: decoupled, of both.
    """
    modules = list(modules)
    trained = [p for module in modules for p in module.parameters() if p.requires_grad]
    if name == "adamw":
        return torch.optim.AdamW(trained, lr=learning_rate, weight_decay=weight_decay, betas=BETAS)
    matrices = {
        id(layer.weight)
        for module in modules
        for layer in module.modules()
        if isinstance(layer, nn.Linear) and min(layer.weight.shape) >= LEAST_SIDE
    }
    return MuonWithAdamW(
        [p for p in trained if id(p) in matrices],
        [p for p in trained if id(p) not in matrices],
        learning_rate=learning_rate,
        weight_decay=weight_decay,
    )


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon for some parameters and AdamW for others, with one state and one list of groups.

    Args:
        matrices: what Muon steps.
        others: what AdamW steps.
        learning_rate: of both.
        weight_decay: of both, decoupled.
    """

    def __init__(
        self,
        matrices: list[nn.Parameter],
        others: list[nn.Parameter],
        *,
        learning_rate: float,
        weight_decay: float,
    ) -> None:
        self._steppers: list[torch.optim.Optimizer] = []
        if matrices:
            self._steppers.append(Muon(matrices, learning_rate=learning_rate, weight_decay=weight_decay))
        if others:
            self._steppers.append(
                torch.optim.AdamW(
                    others, lr=learning_rate, weight_decay=weight_decay, betas=BETAS, fused=True
                )
            )
        super().__init__([group for stepper in self._steppers for group in stepper.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Both step with the groups (and so the learning rates) and the state of this one."""
        for stepper, group in zip(self._steppers, self.param_groups, strict=True):
            stepper.param_groups, stepper.state = [group], self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state."""
        super().load_state_dict(state_dict)
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step of all parameters."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for stepper in self._steppers:
            stepper.step()
        return loss
