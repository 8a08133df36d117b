"""How often charge balance counts in the choice of elements; pymatgen's oxidation states are the oracle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from pymatgen.core import Composition, Element

from nucleate import Condition, load
from nucleate.errors import ConditionError
from nucleate.generation.generator import Generator
from nucleate.generation.template_sampling import draw_templates
from nucleate.processes.joint_process import template_batch
from nucleate.processes.template_process import SampledTemplate


@pytest.fixture(scope="module")
def shipped() -> Generator:
    return load()


def _drawn(shipped: Generator, condition: Condition, n: int, charge_weight: float) -> list[SampledTemplate]:
    streams = [np.random.default_rng([7, i]) for i in range(n)]
    return draw_templates(shipped.template, condition, streams, charge_weight=charge_weight)


def _share_neutral(templates: Sequence[SampledTemplate]) -> float:
    counts = [crystal.composition for crystal in template_batch(templates).to_crystals()]
    compositions = [Composition({Element.from_Z(int(z)): n for z, n in one.items()}) for one in counts]
    ionic = [one for one in compositions if not all(element.is_metal for element in one)]
    return float(np.mean([bool(one.oxi_state_guesses(max_sites=-1)) for one in ionic]))


def test_more_compositions_balance_the_more_it_counts(shipped: Generator) -> None:
    oxides = Condition(elements=("O",), num_atoms=(2, 12))
    without, usual, most = (_share_neutral(_drawn(shipped, oxides, 200, w)) for w in (0.0, 1.0, 6.0))
    assert without < usual < most
    assert most > without + 0.1


def test_where_the_composition_is_given_it_changes_nothing(shipped: Generator) -> None:
    once, often = (_drawn(shipped, Condition(formula="SrTiO3"), 20, w) for w in (1.0, 6.0))
    for a, b in zip(once, often):
        assert (a.space_group_number, a.log_prob) == (b.space_group_number, b.log_prob)
        assert a.wyckoff_indices.tolist() == b.wyckoff_indices.tolist()
        assert a.atomic_numbers.tolist() == b.atomic_numbers.tolist()


def test_a_network_that_was_not_trained_for_it_is_not_led_by_it(generator: Generator) -> None:
    once, often = (_drawn(generator, Condition(), 20, w) for w in (1.0, 6.0))
    assert [t.log_prob for t in once] == [t.log_prob for t in often]


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_impossible_weights_are_refused(generator: Generator, value: float) -> None:
    with pytest.raises(ConditionError, match="charge_weight must be a number that is not negative"):
        generator.generate(n=1, charge_weight=value)
