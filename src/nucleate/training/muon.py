"""Muon: orthogonal steps of weight matrices, those of one shape together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from nucleate.shapes import Float

MOMENTUM = 0.95
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration X <- a X + (b G + c G^2) X with G = X X^T."""
ITERATIONS = 5
_LEAST_NORM = 1e-7


def orthogonalised(matrices: Float[Tensor, "batch rows columns"]) -> Float[Tensor, "batch rows columns"]:
    """About the nearest orthogonal matrix U V^T to each U S V^T, in bfloat16: singular values come to 0.7 to 1.2.

    Five steps of the quintic Newton-Schulz iteration. Matrices of a network are small and many of one shape; in one
    batched product they take a seventh of the time that they take one by one on a CPU.

    Source: K. Jordan et al., Muon (2024), kellerjordan.github.io/posts/muon.
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).bfloat16().contiguous()
    x = x / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True).clamp(min=_LEAST_NORM)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum whose matrix is made orthogonal before each step, with decoupled weight decay.

    The step of torch's own ``torch.optim.Muon`` with ``adjust_lr_fn="match_rms_adamw"`` and its other defaults, and the
    same state.

    Args:
        matrices: two-dimensional parameters.
        learning_rate: eta; the step is ``0.2 sqrt(max(rows, columns)) eta`` times an orthogonal matrix.
        weight_decay: parameters are multiplied by ``1 - eta weight_decay`` before each step.
    """

    def __init__(
        self, matrices: Iterable[nn.Parameter], *, learning_rate: float, weight_decay: float
    ) -> None:
        super().__init__(matrices, {"lr": learning_rate, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step of all matrices that have a gradient; there is no closure that could be evaluated again."""
        for group in self.param_groups:
            by_shape: dict[tuple[torch.Size, torch.device], list[Tensor]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    by_shape[(p.shape, p.device)].append(p)
            for (shape, _), parameters in by_shape.items():
                gradients = [p.grad for p in parameters if p.grad is not None]
                states = [self.state[p] for p in parameters]
                for state, p in zip(states, parameters):
                    if "momentum_buffer" not in state:
                        state["momentum_buffer"] = torch.zeros_like(p)
                momenta = [state["momentum_buffer"] for state in states]
                torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
                ahead = torch._foreach_lerp(gradients, momenta, MOMENTUM)  # Nesterov
                steps = orthogonalised(torch.stack(list(ahead))).to(parameters[0].dtype)
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(
                    parameters, list(steps.unbind(0)), alpha=-0.2 * max(shape) ** 0.5 * group["lr"]
                )
