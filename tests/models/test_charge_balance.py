"""Charge balance against sums over all choices of oxidation states, and what the template network makes of it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

from nucleate.crystal.tables import group_arrays
from nucleate.models.charge_balance import ChargeBalance
from nucleate.models.growth import grown_template
from nucleate.models.template_transformer import (
    TemplateBatch,
    TemplateTransformer,
    TemplateTransformerConfig,
)
from nucleate.physics.charge import is_charge_neutral
from nucleate.physics.elements import element_symbol, is_metal, oxidation_state_probabilities

COMPOSITIONS = [
    {11: 1, 17: 1},
    {25: 4, 9: 10},
    {26: 3, 8: 4},
    {38: 1, 22: 1, 8: 3},
    {26: 1, 27: 1},
    {55: 2, 18: 1},
]


def _by_enumeration(counts: dict[int, int]) -> tuple[float, dict[int, dict[int, float]]]:
    """Probability of neutrality and the states' shares if neutral, over all products of states."""
    known = {z: oxidation_state_probabilities(z) or {0: 1.0} for z in counts}
    whole, shares = 0.0, {z: dict.fromkeys(known[z], 0.0) for z in counts}
    for states in itertools.product(*known.values()):
        if sum(n * state for n, state in zip(counts.values(), states)) == 0:
            chance = 1.0
            for z, state in zip(counts, states):
                chance *= known[z][state]
            whole += chance
            for z, state in zip(counts, states):
                shares[z][state] += chance
    return whole, {z: {o: s / whole if whole else 0.0 for o, s in by.items()} for z, by in shares.items()}


@pytest.mark.parametrize("counts", COMPOSITIONS, ids=lambda c: "".join(element_symbol(z) for z in c))
def test_probability_and_states_of_a_composition(counts: dict[int, int]) -> None:
    balance = ChargeBalance(8)
    padded = [*counts, 0], [*counts.values(), 0]
    neutral, states = balance.composition(torch.tensor([padded[0]]), torch.tensor([padded[1]]).double())
    expected, shares = _by_enumeration(counts)
    assert neutral.item() == pytest.approx(expected, abs=1e-12)
    for column, z in enumerate(counts):
        for state, share in shares[z].items():
            assert states[0, column, state + 5].item() == pytest.approx(share, abs=1e-9)
    named = {element_symbol(z): n for z, n in counts.items()}
    assert (expected > 0) == is_charge_neutral(named)


def test_every_next_orbit_is_weighed() -> None:
    balance = ChargeBalance(8).double()
    own, placed = torch.tensor([[25, 9, 0]]), torch.tensor([[[0, 0, 0], [4, 0, 0], [4, 6, 0]]]).double()
    found = balance.growing(own, placed, torch.tensor([[True, True, True]]))
    assert found.metallic.tolist() == [[1, 1, 0]]
    for step, counts in enumerate(({}, {25: 4}, {25: 4, 9: 6})):
        assert found.now[0, step].item() == pytest.approx(
            _by_enumeration(counts)[0] if counts else 1, abs=1e-12
        )
        for row, size in enumerate(balance.sizes.tolist()):
            chances = {}
            for z in (1, 8, 9, 18, 25, 26, 92):
                chances[z] = _by_enumeration(counts | {z: counts.get(z, 0) + size})[0]
                assert found.after[0, step, row, z - 1].item() == pytest.approx(chances[z], abs=1e-9)
            assert found.best_placed[0, step, row].item() == pytest.approx(
                max((chances[z] for z in counts), default=0), abs=1e-9
            )
            others = [z for z in range(1, 104) if z not in counts]
            assert found.best_new[0, step, row].item() == pytest.approx(
                found.after[0, step, row, torch.tensor(others) - 1].max().item()
            )
    # MnF: four Mn and six F balance as a mixture only, eight F or twelve balance with one state.
    after = dict(zip(balance.sizes.tolist(), found.after[0, 2, :, 8].tolist()))
    assert after[2] > 0.5
    assert after[6] > 0.2
    assert after[1] < 1e-9


def test_metals_are_never_neutral_but_told_apart() -> None:
    """Negative control: the flag, not the probability, tells an alloy."""
    balance = ChargeBalance(8)
    neutral, states = balance.composition(torch.tensor([[26, 28]]), torch.tensor([[1.0, 1.0]]))
    assert neutral.item() < 1e-15  # how the transform rounds depends on the processor
    assert (states == 0).all()
    assert all(bool(balance.metal[z]) == is_metal(z) for z in range(1, 104))
    growing = balance.growing(torch.tensor([[26, 28]]), torch.tensor([[[1.0, 1.0]]]), torch.tensor([[True]]))
    assert growing.metallic.item() == 1


def _placed(first: int, second: int) -> TemplateBatch:
    """Rock salt's two positions, the composition open."""
    start = int(group_arrays()["position_start"][224])
    return TemplateBatch(
        *(torch.tensor([x]) for x in (225, 1, [0], [0], False, 0)),
        torch.tensor([[start, start + 1]]),
        torch.tensor([[first, second]]),
    )


def _logits(network: TemplateTransformer, batch: TemplateBatch) -> list[torch.Tensor]:
    states = network(batch)
    zero = torch.zeros(1, dtype=torch.int64)
    position = int(group_arrays()["position_start"][224]) + 1
    return [
        states.state,
        network.position_logits(states, batch.space_group_number),
        network.element_logits(states, batch, crystals=zero, steps=zero + 1, positions=zero + position),
    ]


def test_a_network_without_gives_the_same_numbers_with_it_until_it_is_trained() -> None:
    torch.manual_seed(0)
    config = TemplateTransformerConfig(width=32, layers=2, heads=4)
    old = TemplateTransformer(replace(config, charge_balance=False)).double().eval()
    new = grown_template(old, config)
    assert new.charge is not None
    batch = _placed(11, 17)
    for before, after in zip(_logits(old, batch), _logits(new, batch)):
        assert torch.equal(before, after)
    with torch.no_grad():
        new.charge.element_weights.bias[0] = 1
        new.charge.end_weights.bias[0] = 1
    after = _logits(new, batch)
    gained = (after[2] - _logits(old, batch)[2])[0]  # Na is there, one atom more comes
    assert gained[17 - 1] > gained[8 - 1] + 1  # NaCl, not NaO
    assert gained[9 - 1] > gained[12 - 1] + 1  # NaF, not NaMg
    ends = [(_logits(new, _placed(11, z))[1] - _logits(old, _placed(11, z))[1])[0, 2, 0] for z in (17, 8)]
    assert ends[0] > ends[1] + 1  # the end comes after NaCl, not after NaO
