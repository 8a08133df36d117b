"""Batches and loss of the template task."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch

from nucleate.crystal import space_group
from nucleate.models.template_transformer import TemplateBatch, TemplateTransformer, TemplateTransformerConfig
from nucleate.training import template_task
from nucleate.training.template_task import Template, TemplateTargets, make_template_batch, template_loss

PEROVSKITE = Template(1, 221, np.array([0, 1, 2]), np.array([38, 22, 8]))
RUTILE = Template(2, 136, np.array([0, 5]), np.array([22, 8]))
DIAMOND = Template(3, 227, np.array([0]), np.array([6]))


@pytest.fixture(scope="module")
def network() -> TemplateTransformer:
    torch.manual_seed(0)
    return TemplateTransformer(TemplateTransformerConfig(width=32, layers=2, heads=4, dropout=0.0))


def test_a_batch_holds_the_templates_in_other_orders_and_letters(rng: np.random.Generator) -> None:
    seen_letters, seen_orders = set(), set()
    for _ in range(40):
        batch = make_template_batch([PEROVSKITE, DIAMOND], rng, condition="composition").batch
        indices = batch.positions[0] - space_group(221).position_start
        placed = dict(zip(batch.elements[0].tolist(), indices.tolist()))
        assert placed in ({38: 0, 22: 1, 8: 2}, {38: 1, 22: 0, 8: 3})
        seen_letters.add(placed[8])
        seen_orders.add(tuple(batch.elements[0].tolist()))
        targets = dict(zip(batch.target_elements[0].tolist(), batch.target_counts[0].tolist()))
        assert targets == {38: 1, 22: 1, 8: 3}
        assert batch.elements[1].tolist() == [6, 0, 0]
        assert batch.total_atoms.tolist() == [5, 2]
    assert seen_letters == {2, 3}
    assert len(seen_orders) == 6


@pytest.mark.parametrize("condition", ["composition", "elements", "some_elements", "total", "nothing"])
def test_a_condition_gives_what_it_says(rng: np.random.Generator, condition: str) -> None:
    targets = make_template_batch([PEROVSKITE, RUTILE] * 10, rng, condition=condition)
    batch = targets.batch
    assert (batch.target_counts > 0).any() == (condition == "composition")
    assert (batch.target_elements > 0).any() == (condition in ("composition", "elements", "some_elements"))
    assert batch.elements_closed.all() == (condition in ("composition", "elements"))
    assert (batch.total_atoms > 0).any() == (condition in ("composition", "total"))
    assert (targets.units > 0).any() == (condition == "composition")
    if condition == "composition":
        assert targets.units.tolist() == [1, 2] * 10


def test_the_loss_of_an_untrained_network_is_that_of_the_masks(network: TemplateTransformer) -> None:
    """With all logits equal, each step costs the log of the number of choices the masks leave."""
    uniform = TemplateTransformer(TemplateTransformerConfig(width=32, layers=1, heads=4, dropout=0.0))
    for parameter in uniform.parameters():
        torch.nn.init.zeros_(parameter)
    targets = make_template_batch([DIAMOND], np.random.default_rng(0), condition="composition")
    loss = template_loss(uniform, targets)
    # 2 atoms in Fd-3m: 8a or 8b (2 per primitive cell); C is the only element; then only the end is left
    assert loss.position.item() == pytest.approx(np.log(2))
    assert loss.element.item() == pytest.approx(0.0, abs=1e-6)
    assert loss.group.item() == pytest.approx(np.log(230))
    assert loss.units.item() == pytest.approx(np.log(32))


def test_the_loss_does_not_depend_on_batch_mates(network: TemplateTransformer) -> None:
    """Sums over crystals: the mean over a batch equals the mean of the crystals alone."""
    templates = [PEROVSKITE, RUTILE, DIAMOND]
    targets = make_template_batch(templates, np.random.default_rng(1), condition="composition")
    whole = template_loss(network, targets)
    parts = []
    for row in (slice(i, i + 1) for i in range(3)):
        batch = TemplateBatch(*(getattr(targets.batch, f.name)[row] for f in fields(targets.batch)))
        parts.append(
            template_loss(network, TemplateTargets(batch, targets.unit_counts[row], targets.units[row]))
        )
    for name in ("group", "units", "position", "element"):
        mean = torch.stack([getattr(p, name) for p in parts]).mean()
        assert torch.allclose(getattr(whole, name), mean, atol=1e-5)


def test_the_loss_does_not_depend_on_what_is_padded_together(
    network: TemplateTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone, in twos and all together; and rows and columns that pad are no part of it."""
    garnet = Template(1, 230, np.array([0, 2, 3, 7]), np.array([13, 39, 13, 8]))
    rng = np.random.default_rng(2)
    targets = make_template_batch([garnet, DIAMOND, PEROVSKITE, RUTILE, DIAMOND], rng)
    losses = []
    for together in (1, 2, 5):
        monkeypatch.setattr(template_task, "PADDED_TOGETHER", together)
        loss = template_loss(network, targets)
        losses.append([getattr(loss, f.name).item() for f in fields(loss)])
    np.testing.assert_allclose(losses[1:], losses[:1] * 2, rtol=1e-5)


def test_batches_come_in_few_sizes() -> None:
    """Four columns for one to four orbits or elements, eight for five; what is there stays."""
    five = Template(1, 1, np.zeros(5, dtype=np.int64), np.array([3, 8, 8, 15, 26]))
    rng = np.random.default_rng(0)
    for templates, orbits in (([DIAMOND], 4), ([PEROVSKITE, RUTILE], 4), ([five, DIAMOND], 8)):
        targets = make_template_batch(templates, rng, condition="composition")
        sized = targets.in_few_sizes()
        assert sized.batch.positions.shape == sized.batch.elements.shape == (len(templates), orbits)
        assert sized.batch.target_elements.shape == sized.unit_counts.shape == (len(templates), 4)
        assert sized.batch.num_orbits.tolist() == targets.batch.num_orbits.tolist()
        assert (
            sized.batch.target_counts.sum(dim=1).tolist() == targets.batch.target_counts.sum(dim=1).tolist()
        )
    assert make_template_batch([DIAMOND], rng, condition="nothing").in_few_sizes().unit_counts.shape == (1, 0)


def test_a_few_templates_are_learned(network: TemplateTransformer) -> None:
    """Twenty steps on three templates lower every part of the loss."""
    rng = np.random.default_rng(0)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    templates = [PEROVSKITE, RUTILE, DIAMOND] * 8
    losses = []
    for _ in range(30):
        loss = template_loss(network, make_template_batch(templates, rng))
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
        losses.append([loss.group.item(), loss.position.item(), loss.element.item()])
    assert (np.mean(losses[-3:], axis=0) < 0.6 * np.mean(losses[:3], axis=0)).all()
