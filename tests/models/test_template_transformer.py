"""The template network: a function of the set of placed orbits, causal, blind to padding and to the group's mask."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from nucleate.crystal.tables import group_arrays
from nucleate.models.template_transformer import (
    TemplateBatch,
    TemplateTransformer,
    TemplateTransformerConfig,
)


@pytest.fixture(scope="module")
def network() -> TemplateTransformer:
    torch.manual_seed(0)
    model = TemplateTransformer(TemplateTransformerConfig(width=32, layers=3, heads=4)).double().eval()
    for part in (model.step_kinds, model.own_score):  # they start at zero
        torch.nn.init.normal_(part.weight, std=0.5)
    return model


def _batch(sizes: list[int], seed: int = 0) -> TemplateBatch:
    """Random templates with full, partial or no composition."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.tensor(group_arrays()["position_start"].copy())
    n, most = len(sizes), max(sizes)
    number = torch.randint(1, 231, (n,), generator=generator)
    count = (start[number] - start[number - 1])[:, None]
    index = (torch.rand(n, most, generator=generator) * count).long()
    real = torch.arange(most) < torch.tensor(sizes)[:, None]
    targets = torch.tensor([[38, 22, 8], [8, 22, 0], [0, 0, 0]]).repeat(n, 1)[:n]
    elements = torch.tensor([38, 22, 8])[torch.randint(0, 3, (n, most), generator=generator)]
    return TemplateBatch(
        space_group_number=number,
        source=torch.randint(0, 8, (n,), generator=generator),
        target_elements=targets,
        target_counts=torch.where(targets > 0, torch.randint(0, 30, (n, 3), generator=generator), 0),
        elements_closed=torch.arange(n) % 2 == 0,
        total_atoms=torch.randint(0, 60, (n,), generator=generator),
        positions=torch.where(real, start[number - 1][:, None] + index, -1),
        elements=torch.where(real, elements, 0),
    )


def _rows(batch: TemplateBatch, rows: slice, orbits: int) -> TemplateBatch:
    changes = {name: getattr(batch, name)[rows] for name in batch.__dataclass_fields__}
    changes["positions"] = changes["positions"][:, :orbits]
    changes["elements"] = changes["elements"][:, :orbits]
    return TemplateBatch(**changes)


def test_a_state_depends_on_the_set_of_orbits_not_on_their_order(network: TemplateTransformer) -> None:
    batch = _batch([6, 6, 6, 6])
    order = torch.tensor([3, 0, 2, 1, 5, 4])
    shuffled = replace(batch, positions=batch.positions[:, order], elements=batch.elements[:, order])
    state, other = network(batch).state, network(shuffled).state
    for step in (0, 4, 6):  # the steps whose sets of orbits agree
        assert torch.allclose(state[:, step], other[:, step], rtol=0, atol=1e-12)
    assert not torch.allclose(state[:, 2], other[:, 2], atol=1e-3)


def test_later_orbits_do_not_change_earlier_states(network: TemplateTransformer) -> None:
    batch = _batch([6, 6, 6])
    short = _rows(batch, slice(None), 3)
    assert torch.allclose(network(batch).state[:, :4], network(short).state, rtol=0, atol=1e-12)
    last = network(batch, torch.tensor([[3]] * 3)).state[:, 0]
    assert torch.allclose(last, network(short).state[:, 3], rtol=0, atol=1e-12)


def test_orbits_do_matter(network: TemplateTransformer) -> None:
    """Negative control: another element on one orbit changes the states that have seen it."""
    batch = _batch([4, 4])
    elements = batch.elements.clone()
    elements[:, 2] = 79
    state, other = network(batch).state, network(replace(batch, elements=elements)).state
    assert torch.equal(state[:, :3], other[:, :3])
    assert not torch.allclose(state[:, 3], other[:, 3], atol=1e-3)


def test_padding_and_batch_mates_change_nothing(network: TemplateTransformer) -> None:
    sizes = [2, 7, 0, 4]
    batch = _batch(sizes)
    states = network(batch)
    logits = network.position_logits(states, batch.space_group_number)
    groups = network.group_logits(batch)
    for i, size in enumerate(sizes):
        alone = _rows(batch, slice(i, i + 1), size)
        own = network(alone)
        assert torch.allclose(states.state[i, : size + 1], own.state[0], rtol=0, atol=1e-12)
        choices = network.position_logits(own, alone.space_group_number)[0]
        assert torch.allclose(logits[i, : size + 1, : choices.shape[1]], choices, rtol=0, atol=1e-12)
        assert torch.isneginf(logits[i, :, choices.shape[1] :]).all()
        assert torch.allclose(groups[i], network.group_logits(alone)[0], rtol=0, atol=1e-12)


def test_group_and_units_do_not_see_group_or_orbits(network: TemplateTransformer) -> None:
    batch = _batch([3, 3, 3])
    other = replace(
        batch, space_group_number=torch.zeros(3, dtype=torch.int64), positions=batch.positions * 0 - 1
    )
    assert torch.equal(network.group_logits(batch), network.group_logits(other))
    assert torch.equal(network.units_logits(batch), network.units_logits(other))
    assert network.group_logits(batch).shape == (3, 230)


def test_the_number_of_atoms_left_is_counted_exactly(network: TemplateTransformer) -> None:
    batch = _batch([5, 5, 5])
    states = network(batch)
    sizes = torch.tensor(group_arrays()["num_images"].copy())[batch.positions]
    for step in range(6):
        for t in range(3):
            match = batch.elements[:, :step] == batch.target_elements[:, t : t + 1]
            assert torch.equal(states.placed[:, step, t], (sizes[:, :step] * match).sum(dim=1).double())


def test_element_logits_take_any_pairs(network: TemplateTransformer) -> None:
    batch = _batch([3, 2])
    states = network(batch)
    pairs = {
        "crystals": torch.tensor([0, 1, 1]),
        "steps": torch.tensor([3, 0, 2]),
        "positions": torch.tensor([5, 9, 1730]),
    }
    logits = network.element_logits(states, batch, **pairs)
    one = network.element_logits(states, batch, **{k: v[1:2] for k, v in pairs.items()})
    assert logits.shape == (3, 103)
    assert torch.allclose(logits[1:2], one, rtol=0, atol=1e-12)


def test_mixed_precision_counts_atoms_beyond_bfloat16(network: TemplateTransformer) -> None:
    """257 is not a bfloat16 number; the network must not lose an atom of a large cell."""
    single = TemplateTransformer(TemplateTransformerConfig(width=32, layers=1, heads=4)).eval()
    general = int(group_arrays()["position_start"][47]) - 1  # group 47, 8 atoms
    positions = torch.full((1, 33), general)
    positions[0, 32] = int(group_arrays()["position_start"][46])  # 1 atom
    batch = TemplateBatch(
        *(torch.tensor(x) for x in ([47], [0], [[8]], [[300]], [True], [300])),
        positions,
        torch.full((1, 33), 8),
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert single(batch).placed[0, -1, 0].item() == 257


def _last_element_logits(network: TemplateTransformer, batch: TemplateBatch, seen: int) -> torch.Tensor:
    """Element logits of every crystal on the first position of group 1 after so many orbits."""
    n = len(batch)
    return network.element_logits(
        network(batch, torch.full((n, 1), seen)),
        batch,
        crystals=torch.arange(n),
        steps=torch.zeros(n, dtype=torch.int64),
        positions=torch.zeros(n, dtype=torch.int64),
    )


def test_element_logits_see_the_set_of_placed_elements_and_no_later_ones(
    network: TemplateTransformer,
) -> None:
    batch = _batch([5, 5, 5])
    logits = _last_element_logits(network, batch, 3)
    order = torch.tensor([2, 0, 1, 4, 3])
    shuffled = replace(batch, positions=batch.positions[:, order], elements=batch.elements[:, order])
    assert torch.allclose(logits, _last_element_logits(network, shuffled, 3), rtol=0, atol=1e-12)
    later = batch.elements.clone()
    later[:, 3:] = 79
    assert torch.allclose(
        logits, _last_element_logits(network, replace(batch, elements=later), 3), rtol=0, atol=1e-12
    )
    earlier = batch.elements.clone()
    earlier[:, 0] = 79
    changed = _last_element_logits(network, replace(batch, elements=earlier), 3)
    assert not torch.allclose(logits, changed, atol=1e-3)


def test_only_placed_elements_have_a_score_of_their_own(network: TemplateTransformer) -> None:
    batch = _batch([4, 4, 4], seed=3)
    without = TemplateTransformer(replace(network.config, element_reuse=False)).double().eval()
    state = network.state_dict()
    without.load_state_dict({name: state[name] for name in without.state_dict()})
    silent = TemplateTransformer(network.config).double().eval()
    silent.load_state_dict(state)
    torch.nn.init.zeros_(silent.step_kinds.weight)
    difference = _last_element_logits(silent, batch, 2) - _last_element_logits(without, batch, 2)
    for row, elements in zip(difference, batch.elements):
        placed = torch.zeros(len(row), dtype=torch.bool)
        placed[elements[:2] - 1] = True
        assert (row[placed].abs() > 1e-6).all()
        assert (row[~placed] == 0).all()
