"""Muon with AdamW: each steps what is its own as torch's own optimisers do, and a resumed one goes on to the bit."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from nucleate.models.template_transformer import TemplateTransformer, TemplateTransformerConfig
from nucleate.training.muon import orthogonalised
from nucleate.training.optimiser import BETAS, MuonWithAdamW, make_optimiser


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Embedding(40, 32),
        nn.Linear(32, 24),
        nn.SiLU(),
        nn.LayerNorm(24),
        nn.Linear(24, 20),
        nn.Linear(20, 3),
    )


def step(module: nn.Module, optimiser: torch.optim.Optimizer, seed: int) -> None:
    tokens = torch.randint(40, (64,), generator=torch.Generator().manual_seed(seed))
    optimiser.zero_grad()
    (module(tokens) - tokens[:, None]).square().mean().backward()
    optimiser.step()


def near(a: nn.Module, b: nn.Module) -> bool:
    """Equal but for the rounding of orthogonal steps, which are in bfloat16: 0.4 % of some steps of 0.01."""
    return all(torch.allclose(x, y, atol=2e-3) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_each_parameter_is_stepped_as_by_torchs_own_optimisers() -> None:
    ours, theirs = network(), network()
    both = make_optimiser("muon", [ours], learning_rate=0.01, weight_decay=0.1)
    matrices = [theirs[1].weight, theirs[4].weight]  # the last layer is narrow, the first is an embedding
    rest = [p for p in theirs.parameters() if all(p is not m for m in matrices)]
    muon = torch.optim.Muon(matrices, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(rest, lr=0.01, weight_decay=0.1, betas=BETAS)
    for seed in range(5):
        step(ours, both, seed)
        muon.zero_grad()
        step(theirs, adamw, seed)  # leaves the gradients of the matrices for the other
        muon.step()
        assert near(ours, theirs)
    assert not near(ours, network())


def test_a_learning_rate_of_zero_stops_both() -> None:
    ours = network()
    both = make_optimiser("muon", [ours], learning_rate=0.01, weight_decay=0.1)
    step(ours, both, 0)
    before = copy.deepcopy(ours)
    for group in both.param_groups:
        group["lr"] = 0.0
    step(ours, both, 1)
    assert same(ours, before)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_resumed_one_goes_on_to_the_bit(name) -> None:
    ours = network()
    first = make_optimiser(name, [ours], learning_rate=0.01, weight_decay=0.1)
    for seed in range(3):
        step(ours, first, seed)
    other = copy.deepcopy(ours)
    second = make_optimiser(name, [other], learning_rate=0.5, weight_decay=0.0)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for seed in range(3, 6):
        step(ours, first, seed)
        step(other, second, seed)
    assert same(ours, other)
    forgetful = copy.deepcopy(other)
    step(ours, first, 6)
    step(forgetful, make_optimiser(name, [forgetful], learning_rate=0.01, weight_decay=0.1), 6)
    assert not same(ours, forgetful)


def test_frozen_parameters_and_embeddings_are_not_orthogonalised() -> None:
    module = TemplateTransformer(TemplateTransformerConfig(width=32, layers=1, heads=2))
    module.position_embedding.weight.requires_grad_(False)
    both = make_optimiser("muon", [module], learning_rate=0.01, weight_decay=0.0)
    assert isinstance(both, MuonWithAdamW)
    matrices, others = ({id(p) for p in group["params"]} for group in both.param_groups)
    assert id(module.element_embedding.weight) in others
    assert id(module.layers[0].qkv.weight) in matrices
    assert id(module.position_embedding.weight) not in matrices | others
    assert len(matrices | others) == sum(p.requires_grad for p in module.parameters())


@pytest.mark.parametrize("shape", [(7, 24, 40), (3, 40, 24), (1, 32, 32)])
def test_many_matrices_at_once_become_orthogonal_as_one_by_one(shape) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    together = orthogonalised(matrices).float()
    for one, matrix in zip(together, matrices):
        assert torch.allclose(one, orthogonalised(matrix[None])[0].float(), atol=0.02)
        left, _, right = torch.linalg.svd(matrix, full_matrices=False)
        values = torch.linalg.svdvals(one)
        assert float(values.min()) > 0.6
        assert float(values.max()) < 1.3
        aligned = torch.linalg.diagonal(left.mT @ one @ right.mT)
        assert torch.allclose(aligned, values.mean().expand_as(aligned), atol=0.35)
