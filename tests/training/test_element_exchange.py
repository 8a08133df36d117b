"""Exchanged elements are like those they stand for, keep charges balanced, and only training sees them."""

from __future__ import annotations

import numpy as np
import smact
import torch

from nucleate.crystal import CrystalBatch, encode
from nucleate.crystal.species import ATOMIC_NUMBER_OF, element_symbol
from nucleate.data.bundled import bundled_crystal
from nucleate.models.template_transformer import TemplateTransformer, TemplateTransformerConfig
from nucleate.training.crystal_stream import SourcedCrystals
from nucleate.training.element_exchange import exchange_elements, exchange_probabilities
from nucleate.training.tasks import TemplateTask
from nucleate.training.template_task import template_loss


def likely(symbol: str) -> set[str]:
    row = exchange_probabilities()[ATOMIC_NUMBER_OF[symbol] - 1]
    return {element_symbol(int(i) + 1) for i in np.argsort(-row)[:3]}


def test_elements_are_exchanged_for_those_of_their_family() -> None:
    assert likely("Na") <= {"Li", "K", "Rb", "Ag"}
    assert likely("Sr") <= {"Ca", "Ba", "Mg", "Eu"}
    assert {"Br", "I"} <= likely("Cl")
    assert likely("O") <= {"S", "Se", "Te"}
    assert len(likely("La") & {"Pr", "Ce", "Nd", "Sm", "Eu", "Gd"}) >= 2
    rows = exchange_probabilities()
    assert np.all((np.abs(rows.sum(axis=1) - 1) < 1e-12) | (rows.sum(axis=1) == 0))
    assert np.all(rows.diagonal() == 0)


def test_what_is_exchanged_shares_an_oxidation_state_by_smacts_own_table(rng: np.random.Generator) -> None:
    """SMACT keeps its own list of states; pairs drawn at random share one far less often."""

    def states(z: int) -> set[int]:
        return set(smact.Element(element_symbol(z)).oxidation_states)

    before = np.array([11, 38, 22, 26, 57, 8, 17, 29, 13, 50])
    shared, by_chance = [], []
    for _ in range(100):
        after = exchange_elements(before, rng)
        shared += [bool(states(int(a)) & states(int(b))) for a, b in zip(before, after) if a != b]
        by_chance += [bool(states(int(a)) & states(int(b))) for a, b in zip(before, rng.permutation(before))]
    assert np.mean(shared) > 0.95
    assert np.mean(by_chance) < 0.85


def test_orbits_of_one_element_stay_so_and_different_ones_stay_different(rng: np.random.Generator) -> None:
    before = np.array([38, 22, 8, 8, 56])
    changed = 0
    for _ in range(200):
        after = exchange_elements(before, rng)
        assert after[2] == after[3]
        assert len(set(after.tolist())) == 4
        changed += not np.array_equal(before, after)
    assert 150 < changed < 200


def test_training_sees_exchanged_elements_and_validation_does_not() -> None:
    crystal = encode(bundled_crystal("srtio3-strontium-titanate").unit_cell).crystal
    content = SourcedCrystals(
        CrystalBatch.from_crystals([crystal] * 50), torch.ones(50, dtype=torch.int64), torch.arange(50)
    )

    def formulas(share: float) -> set[tuple[int, ...]]:
        elements = TemplateTask(share).prepare(content, 0, noise_level=1.0).targets.batch.elements
        return {tuple(sorted(row)) for row in elements.tolist()}

    assert formulas(0.0) == {(8, 22, 38)}
    assert len(formulas(0.7)) > 10
    assert (8, 22, 38) in formulas(0.7)


def test_groups_are_learned_from_exchanged_compositions_and_orbits_from_real_ones() -> None:
    """The two losses see different elements of the same crystals, whatever group and counts those have."""
    crystal = encode(bundled_crystal("srtio3-strontium-titanate").unit_cell).crystal
    content = SourcedCrystals(
        CrystalBatch.from_crystals([crystal] * 50), torch.ones(50, dtype=torch.int64), torch.arange(50)
    )
    example = TemplateTask(0.0, 0.7).prepare(content, 0, noise_level=1.0)
    assert example.compositions is not None
    assert {tuple(sorted(row)) for row in example.targets.batch.elements.tolist()} == {(8, 22, 38)}
    read = {tuple(sorted(row)) for row in example.compositions.batch.elements.tolist()}
    assert len(read) > 10
    assert (example.compositions.batch.space_group_number == 221).all()
    chosen = example.take(torch.tensor([3, 5]))
    assert chosen.compositions is not None
    assert len(chosen) == len(chosen.compositions.units) == 2

    torch.manual_seed(0)
    network = TemplateTransformer(TemplateTransformerConfig(width=32, layers=1, heads=4, dropout=0.0))
    told, alone = (
        template_loss(network, example.targets, compositions=example.compositions),
        template_loss(network, example.targets),
    )
    assert torch.equal(told.position, alone.position)
    assert torch.equal(told.element, alone.element)
    assert not torch.equal(told.group, alone.group)
    assert torch.equal(told.group, template_loss(network, example.compositions).group)
