"""A grown network is the same function until its new branches are trained, and every branch can learn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from random_crystals import SMALL, network, noisy, random_crystal
from safetensors.torch import load_file

from nucleate.errors import CheckpointError
from nucleate.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from nucleate.models.growth import grown
from nucleate.models.orbit_transformer import OrbitTransformer, OrbitTransformerConfig

BRANCHES = {
    "reciprocal": {"reciprocal": 6},
    "coarse": {"coarse": 8},
    "tensors": {"tensors": 4},
    "layers": {"layers": SMALL.layers + 2},
    "hidden": {"hidden": 2 * SMALL.hidden},
    "all": {
        "reciprocal": 6,
        "coarse": 8,
        "tensors": 4,
        "layers": SMALL.layers + 1,
        "hidden": SMALL.hidden + SMALL.heads,
    },
}
GROUPS = [1, 14, 36, 88, 194]


@pytest.mark.parametrize("branch", BRANCHES)
def test_the_same_numbers_before_training(branch: str) -> None:
    model = network()
    larger = grown(model, replace(model.config, **BRANCHES[branch]))
    given = noisy([random_crystal(n) for n in GROUPS])
    with torch.no_grad():
        before, after = model(given), larger(given)
    for name in ("displacements", "lattice_params", "element_logits"):
        one, other = getattr(before, name), getattr(after, name)
        # A wider product may be summed in another order.
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-13, msg=name)


@pytest.mark.parametrize("branch", BRANCHES)
def test_every_new_weight_learns(branch: str) -> None:
    """Three steps of descent: the first moves what starts at zero, the second everything behind it.

    A tensor that has grown counts as new: all its rows and columns must move
    (but in the first layer, whose vectors are zero).
    """
    model = network()
    larger = grown(model, replace(model.config, **BRANCHES[branch]))
    given = noisy([random_crystal(n) for n in GROUPS])
    sizes = {name: parameter.shape for name, parameter in model.named_parameters()}
    new = {name: p for name, p in larger.named_parameters() if sizes.get(name) != p.shape}
    assert new
    start = {name: p.detach().clone() for name, p in new.items()}
    optimiser = torch.optim.SGD(larger.parameters(), lr=1e-2)
    for _ in range(3):
        out = larger(given)
        loss = (
            (out.displacements - 0.1).square().sum()
            + (out.lattice_params - 0.3).square().sum()
            + out.element_logits[:, 5].square().mean()
        )
        optimiser.zero_grad()
        loss.backward()
        for name, parameter in larger.named_parameters():
            if parameter.grad is not None:
                assert torch.isfinite(parameter.grad).all(), name
        torch.nn.utils.clip_grad_norm_(larger.parameters(), 10.0)
        optimiser.step()
    still = [name for name, p in new.items() if torch.equal(p, start[name])]
    widened = [name for name in sizes if name in new and not name.startswith("layers.0.")]
    still += [name for name in widened if bool((new[name] == start[name]).any())]
    # tensors are zero where the first layer reads them
    assert set(still) <= {"layers.0.attention.from_tensors.weight"}


def test_a_checkpoint_of_the_smaller_network_grows(tmp_path: Path) -> None:
    config = OrbitTransformerConfig(scalars=16, vectors=4, hidden=16, layers=1, heads=2)
    torch.manual_seed(0)
    small = Checkpoint(
        geometry=OrbitTransformer(config), lattice_mean=torch.zeros(6), lattice_std=torch.ones(6)
    )
    loaded = load_checkpoint(save_checkpoint(tmp_path / "a.safetensors", small))
    assert loaded.geometry is not None
    wanted = replace(config, reciprocal=4, coarse=8, tensors=2)
    larger = loaded.replace(geometry=grown(loaded.geometry, wanted))
    path = save_checkpoint(tmp_path / "b.safetensors", larger)
    back = load_checkpoint(path)
    assert back.geometry is not None
    assert back.geometry.config == wanted
    given = noisy([random_crystal(n) for n in GROUPS])
    with torch.no_grad():
        for a, b in zip(
            vars(loaded.geometry.double()(given)).values(), vars(back.geometry.double()(given)).values()
        ):
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13)
    assert set(load_file(tmp_path / "a.safetensors")) < set(load_file(path))


def test_the_callers_random_stream_is_left_alone_and_the_seed_decides() -> None:
    model = network()
    wanted = replace(model.config, coarse=8)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = grown(model, wanted, seed=1)
    assert torch.equal(torch.rand(3), expected)
    second, third = grown(model, wanted, seed=1), grown(model, wanted, seed=2)
    name = "layers.0.coarse.query.weight"
    assert torch.equal(first.state_dict()[name], second.state_dict()[name])
    assert not torch.equal(first.state_dict()[name], third.state_dict()[name])


@pytest.mark.parametrize(
    ("before", "change", "message"),
    [
        ({}, {"scalars": 32}, "change scalars from 16 to 32"),
        ({"reciprocal": 4}, {"reciprocal": 0}, "change reciprocal from 4 to 0"),
        ({"tensors": 2}, {"tensors": 4}, "change tensors from 2 to 4"),
        ({}, {"layers": 2}, "change layers from 3 to 2"),
        ({}, {"hidden": 8}, "change hidden from 16 to 8"),
        ({"reciprocal": 4}, {"reciprocal_radius": 3.0}, "change reciprocal_radius from 2.4 to 3.0"),
    ],
)
def test_other_changes_are_refused(before: dict, change: dict, message: str) -> None:
    config = replace(SMALL, **before)
    with pytest.raises(CheckpointError, match=message):
        grown(OrbitTransformer(config), replace(config, **change))


def test_the_radius_of_a_new_channel_is_free() -> None:
    larger = grown(network(), replace(SMALL, reciprocal=4, reciprocal_radius=3.0))
    assert larger.config.reciprocal_radius == 3.0
