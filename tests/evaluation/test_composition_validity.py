"""The SMACT rule against SMACT itself, and the classes of compositions."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import pytest

from nucleate.crystal.species import element_symbol
from nucleate.evaluation.composition_validity import _table, charge_balance, smact_verdict

smact = pytest.importorskip("smact", reason="the oracle is SMACT (extra evaluate)")
screening = pytest.importorskip("smact.screening", reason="the oracle is SMACT (extra evaluate)")


@cache
def _element(z: int) -> object:
    return smact.Element(element_symbol(z))


def _published(composition: dict[int, int]) -> bool:
    """CDVAE's loop over all combinations, on SMACT's own functions and the data of SMACT 2.2.1 that we ship."""
    table = _table()
    numbers = sorted(composition)
    divisor = int(np.gcd.reduce(list(composition.values())))
    count = [composition[z] // divisor for z in numbers]
    if len(numbers) == 1 or all(table.metal[z - 1] for z in numbers):
        return True
    enegs = [table.electronegativity[z - 1] for z in numbers]
    for states in itertools.product(*(table.states[z - 1] for z in numbers)):
        ratios = smact.neutral_ratios(states, stoichs=[(c,) for c in count], threshold=max(count))
        if ratios and screening.pauling_test(states, enegs):
            return True
    return False


def _known() -> list[int]:
    return [z for z, x in enumerate(_table().electronegativity, 1) if x is not None]


def test_agrees_with_smacts_own_functions_on_random_compositions() -> None:

    rng = np.random.default_rng(0)
    answers = []
    for _ in range(150):
        chosen = rng.choice(_known(), size=rng.integers(2, 5), replace=False).tolist()
        composition = dict(zip(chosen, rng.integers(1, 7, size=len(chosen)).tolist()))
        answers.append(_published(composition))
        assert smact_verdict(composition).valid == answers[-1], composition
    assert 0.2 < np.mean(answers) < 0.9  # both answers occur


def test_table_is_that_of_smact_where_versions_agree() -> None:
    table = _table()
    different = [
        element_symbol(z)
        for z in range(1, 104)
        if list(table.states[z - 1]) != list(_element(z).oxidation_states_smact14 or ())
    ]
    assert different == ["Ir"]  # -3 came after 2.2.1
    corrected = [z for z in range(1, 104) if table.electronegativity[z - 1] != _element(z).pauling_eneg]
    assert [element_symbol(z) for z in corrected] == ["Zr"]  # 0.33 in 2.2.1, 1.33 later: published with 0.33
    assert [element_symbol(z) for z in range(1, 104) if table.metal[z - 1]] == smact.metals


@pytest.mark.parametrize(
    ("composition", "valid", "reason"),
    [
        ({11: 1, 17: 1}, True, "neutral"),
        ({11: 4, 17: 4}, True, "neutral"),
        ({26: 1}, True, "element"),
        ({29: 3, 51: 1}, True, "alloy"),  # Sb counts as a metal in SMACT
        ({11: 1, 17: 2}, False, "no neutral states"),
        ({26: 3, 8: 4}, False, "no neutral states"),  # magnetite: no mixed valence in SMACT
        ({9: 1, 8: 2}, False, "no neutral states"),
        ({2: 1, 8: 1}, False, "no neutral states"),
        ({110: 1, 8: 1}, False, "unknown element"),
    ],
)
def test_known_verdicts(composition: dict[int, int], valid: bool, reason: str) -> None:
    verdict = smact_verdict(composition)
    assert (verdict.valid, verdict.reason) == (valid, reason)


def test_electronegativity_alone_can_decide() -> None:
    # Negative control: the charges of CsAu with gold as the cation sum to zero, only the Pauling test forbids them.
    table = _table()
    for first, second in itertools.combinations(_known(), 2):
        verdict = smact_verdict({first: 1, second: 1})
        if verdict.reason == "electronegativity":
            charges = {a + b for a in table.states[first - 1] for b in table.states[second - 1]}
            assert 0 in charges
            assert not verdict.valid
            return
    pytest.fail("no pair of elements is decided by electronegativity")


def test_missing_electronegativity_follows_the_published_order_of_comparisons() -> None:
    # Pm has no value. In Pm2O3 comparing it with oxygen raises in the published code, which its caller takes for a
    # pass. In LaPmO3 the pairs are met in the order O-La, O-Pm, La-Pm: again Pm meets oxygen first.
    assert smact_verdict({61: 2, 8: 3}).valid
    assert smact_verdict({57: 1, 61: 1, 8: 3}).valid
    # Xe and Pm of equal sign meet before Pm meets an anion of a larger atomic number: a failure.
    assert _literally({54: 2, 61: 2, 85: 8}) == smact_verdict({54: 2, 61: 2, 85: 8}).valid


def _literally(composition: dict[int, int]) -> bool:
    """The published loop where comparing a missing value raises, as it did in SMACT 2.2.1."""
    table, numbers = _table(), sorted(composition)
    divisor = int(np.gcd.reduce(list(composition.values())))
    enegs = [table.electronegativity[z - 1] for z in numbers]
    for states in itertools.product(*(table.states[z - 1] for z in numbers)):
        if sum(o * composition[z] // divisor for o, z in zip(states, numbers)):
            continue
        try:
            if _eneg_states_test(states, enegs):
                return True
        except TypeError:
            return True
    return False


def _eneg_states_test(states: tuple[int, ...], enegs: list) -> bool:
    for (o1, x1), (o2, x2) in itertools.combinations(zip(states, enegs), 2):
        if o1 > 0 and o2 < 0 and x1 >= x2:
            return False
        if o1 < 0 and o2 > 0 and x1 <= x2:
            return False
        if x1 is None or x2 is None:
            return False
    return True


def test_random_compositions_with_missing_electronegativity() -> None:
    rng = np.random.default_rng(1)
    for _ in range(60):
        chosen = [61, *rng.choice(_known(), size=2, replace=False).tolist()]
        composition = dict(zip(chosen, rng.integers(1, 5, size=3).tolist()))
        assert smact_verdict(composition).valid == _literally(composition), composition


def test_too_many_combinations_are_refused_as_in_the_published_code() -> None:
    many = dict.fromkeys([6, 7, 15, 16, 17, 24, 25, 26, 42, 44], 1)
    assert smact_verdict(many).reason == "too many states"


@pytest.mark.parametrize(
    ("composition", "kind"),
    [
        ({11: 1, 17: 1}, "single_valence"),
        ({26: 3, 8: 4}, "mixed_valence"),
        ({29: 1, 30: 1}, "alloy"),
        ({14: 8}, "element"),
        ({11: 1, 9: 5}, "unbalanced"),
        ({110: 1, 8: 1}, "unknown"),
    ],
)
def test_classes(composition: dict[int, int], kind: str) -> None:
    balance = charge_balance(composition)
    assert balance.kind == kind
    assert balance.ok == (kind not in ("unbalanced", "unknown"))


def test_mean_states_balance() -> None:
    balance = charge_balance({26: 3, 8: 4})
    assert 3 * balance.mean_states[26] + 4 * balance.mean_states[8] == pytest.approx(0)
