"""Charge neutrality against brute force, smact and pymatgen; ranking; kinds of substances; large formulas."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleate.physics import assign_oxidation_states, atomic_number, is_charge_neutral, oxidation_states
from nucleate.physics.charge import MIXED_COST, POLARITY_COST, _state_score
from nucleate.physics.elements import element_values, oxidation_state_probabilities


def _by_symbol(**states: dict[int, int]) -> dict[int, dict[int, int]]:
    return dict(sorted((atomic_number(symbol), by_state) for symbol, by_state in states.items()))


@pytest.mark.parametrize(
    ("formula", "kind", "states"),
    [
        ({"Na": 1, "Cl": 1}, "single_valence", _by_symbol(Na={1: 1}, Cl={-1: 1})),
        ({"Fe": 3, "O": 4}, "mixed_valence", _by_symbol(Fe={2: 1, 3: 2}, O={-2: 4})),
        ({"Mn": 3, "O": 4}, "mixed_valence", _by_symbol(Mn={2: 1, 3: 2}, O={-2: 4})),
        ({"Pb": 3, "O": 4}, "mixed_valence", _by_symbol(Pb={2: 2, 4: 1}, O={-2: 4})),
        ({"Fe": 1, "S": 2}, "single_valence", _by_symbol(Fe={2: 1}, S={-1: 2})),
        ({"Na": 2, "O": 2}, "single_valence", _by_symbol(Na={1: 1}, O={-1: 1})),
        ({"Li": 1, "Co": 1, "O": 2}, "single_valence", _by_symbol(Li={1: 1}, Co={3: 1}, O={-2: 2})),
        ({"Li": 1, "Mn": 2, "O": 4}, "mixed_valence", _by_symbol(Li={1: 1}, Mn={3: 1, 4: 1}, O={-2: 4})),
        ({"K": 1, "Mn": 1, "O": 4}, "single_valence", _by_symbol(K={1: 1}, Mn={7: 1}, O={-2: 4})),
        ({"Li": 1, "Al": 1, "H": 4}, "single_valence", _by_symbol(Li={1: 1}, Al={3: 1}, H={-1: 4})),
        ({"Si": 1, "C": 1}, "single_valence", _by_symbol(Si={4: 1}, C={-4: 1})),
        ({"Eu": 1, "Ti": 1, "O": 3}, "single_valence", _by_symbol(Eu={2: 1}, Ti={4: 1}, O={-2: 3})),
        (
            {"Y": 1, "Ba": 2, "Cu": 3, "O": 7},
            "mixed_valence",
            _by_symbol(Y={3: 1}, Ba={2: 2}, Cu={2: 2, 3: 1}, O={-2: 7}),
        ),
    ],
)
def test_well_known_compounds(formula, kind, states):
    assignment = assign_oxidation_states(formula)
    assert assignment.kind == kind
    assert assignment.best is not None
    assert assignment.best.states == states


def test_elements_alloys_and_the_unbalanced_are_their_own_kinds():
    assert assign_oxidation_states({"Fe": 4}).kind == "element"
    assert assign_oxidation_states({"S": 8}).best.states == {16: {0: 1}}
    alloy = assign_oxidation_states({"Ni": 3, "Al": 1})
    assert alloy.kind == "alloy"
    assert alloy.best.mean_states() == {13: 0.0, 28: 0.0}
    unbalanced = assign_oxidation_states({"Na": 2, "Cl": 1})
    assert unbalanced.kind == "unbalanced"
    assert unbalanced.assignments == ()
    assert unbalanced.best is None


def test_mixed_valence_can_be_forbidden():
    magnetite = {"Fe": 3, "O": 4}
    assert assign_oxidation_states(magnetite, mixed_valence=False, states="common").kind == "unbalanced"
    assert not is_charge_neutral(magnetite, states="common")
    assert is_charge_neutral(magnetite, mixed_valence=True, states="common")


def _brute_force(counts, *, mixed):
    """All neutral (states by element, log plausibility), by trying everything; at most two states each."""
    order = sorted(counts, key=lambda z: (float(element_values("electronegativity", z)), z))
    choices = []
    for z in order:
        options = []
        probability = oxidation_state_probabilities(z) or {0: 1.0}
        allowed = oxidation_states(z, "all") or (0,)
        for state in allowed:
            options.append(({state: counts[z]}, _state_score((state,), probability)))
        if mixed:
            for low, high in itertools.combinations(allowed, 2):
                score = _state_score((low, high), probability)
                options += [({low: k, high: counts[z] - k}, score) for k in range(1, counts[z])]
        choices.append(options)
    found = []
    for combination in itertools.product(*choices):
        if sum(state * n for split, _ in combination for state, n in split.items()) != 0:
            continue
        score, anion = 0.0, False
        for split, own in combination:
            score += own - (POLARITY_COST if anion and max(split) > 0 else 0.0)
            anion = anion or min(split) < 0
        found.append((dict(zip(order, (split for split, _ in combination))), score))
    return sorted(found, key=lambda item: -item[1])


small_formulas = st.dictionaries(
    st.sampled_from([1, 3, 6, 7, 8, 9, 12, 16, 22, 25, 26, 29, 35, 50, 58, 82]),
    st.integers(1, 4),
    min_size=2,
    max_size=3,
).filter(lambda counts: math.gcd(*counts.values()) == 1 and any(z in (1, 6, 7, 8, 9, 16, 35) for z in counts))


@settings(max_examples=60, deadline=None)
@given(small_formulas, st.booleans())
def test_search_finds_what_trying_everything_finds_in_the_same_order(counts, mixed):
    found = assign_oxidation_states(counts, mixed_valence=mixed, max_assignments=8).assignments
    wanted = _brute_force(counts, mixed=mixed)
    if not wanted:
        # Three states in one element, or nothing.
        assert all(max(len(split) for split in f.states.values()) > 2 for f in found)
        return
    assert len(found) == min(8, len(wanted))
    assert [f.log_plausibility for f in found] == pytest.approx([score for _, score in wanted[:8]], abs=1e-9)
    for assignment in found:
        assert assignment.charge == 0
        assert {z: sum(split.values()) for z, split in assignment.states.items()} == counts
        assert any(
            assignment.states == {z: dict(sorted(split.items())) for z, split in states.items()}
            for states, _ in wanted
        )


@settings(max_examples=100, deadline=None)
@given(small_formulas)
def test_neutrality_is_exact(counts):
    allowed = {z: oxidation_states(z, "all") for z in counts}
    single = any(
        sum(n * s for n, s in zip(counts.values(), states)) == 0
        for states in itertools.product(*allowed.values())
    )
    assert is_charge_neutral(counts) == single
    sums = [
        {sum(states) for states in itertools.combinations_with_replacement(allowed[z], n)}
        for z, n in counts.items()
    ]
    assert is_charge_neutral(counts, mixed_valence=True) == any(
        sum(totals) == 0 for totals in itertools.product(*sums)
    )


@settings(max_examples=40, deadline=None)
@given(small_formulas, st.integers(2, 5))
def test_formula_units_do_not_matter(counts, factor):
    multiple = {z: factor * n for z, n in counts.items()}
    assert assign_oxidation_states(multiple) == assign_oxidation_states(counts)
    assert is_charge_neutral(multiple) == is_charge_neutral(counts)


def test_large_formulas_do_not_explode():
    formula = {"Fe": 300, "O": 401, "Mn": 97, "Li": 13}
    best = assign_oxidation_states(formula).best
    assert best is not None
    assert best.charge == 0
    assert is_charge_neutral(formula, mixed_valence=True)


def test_mixed_valence_costs():
    probability = oxidation_state_probabilities(26)
    gap = _state_score((2, 4), probability) - math.log(probability[2]) - math.log(probability[4])
    near = _state_score((2, 3), probability) - math.log(probability[2]) - math.log(probability[3])
    assert near == pytest.approx(-MIXED_COST)
    # Passing over Fe(+3) between +2 and +4 is less likely than not.
    assert gap < -MIXED_COST - math.log(2) / 2


def test_neutrality_agrees_with_smact():
    screening = pytest.importorskip("smact.screening")
    for formula in (
        {"Na": 1, "Cl": 1},
        {"Na": 2, "Cl": 1},
        {"Fe": 3, "O": 4},
        {"Ca": 1, "Ti": 1, "O": 3},
        {"Al": 1, "O": 1},
        {"Li": 1, "Fe": 1, "P": 1, "O": 4},
        {"Mg": 1, "F": 3},
        {"Cs": 3, "I": 2},
        {"Zn": 1, "S": 1},
        {"Al": 2, "S": 3},
    ):
        allowed = [oxidation_states(atomic_number(symbol), "all") for symbol in formula]
        stoichs = [(n,) for n in formula.values()]
        neutral = any(
            bool(screening.neutral_ratios(states, stoichs=stoichs, threshold=10))
            for states in itertools.product(*allowed)
        )
        assert is_charge_neutral(formula) == neutral


@pytest.mark.filterwarnings("ignore")
def test_pymatgen_and_we_agree_on_most_real_formulas(shared_data, rng):
    import pyarrow.parquet as pq
    from pymatgen.core import Composition, Element

    table = pq.read_table(
        shared_data / "mp_20.parquet", columns=["reduced_formula"], filters=[("pool", "=", "val")]
    )
    formulas = sorted(set(table["reduced_formula"].to_pylist()))
    same = compared = 0
    for formula in rng.permutation(formulas)[:300]:
        composition = Composition(str(formula)).reduced_composition
        if composition.num_atoms > 14 or all(Element(e.symbol).is_metal for e in composition):
            continue
        guesses = composition.oxi_state_guesses()
        if len(composition) < 2 or not guesses:
            continue
        best = assign_oxidation_states(composition).best
        # Whatever pymatgen can balance, so can we.
        assert best is not None
        mean = {atomic_number(symbol): state for symbol, state in guesses[0].items()}
        compared += 1
        same += best.mean_states() == pytest.approx(mean)
    assert compared > 80
    assert same > 0.85 * compared
