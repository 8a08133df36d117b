from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from potentials import Counting, Faulty, bundled, chgnet, emt, rattled
from scipy.optimize import linprog

from nucleate.crystal import Crystal
from nucleate.energetics import hull as hull_module
from nucleate.energetics.batched_relaxation import relax
from nucleate.energetics.cache import ResultCache
from nucleate.energetics.element_references import (
    ElementReferences,
    bundled_elements,
    element_candidates,
)
from nucleate.energetics.hull import FixedEntries, ReferenceEntry, ReferenceHull, System
from nucleate.energetics.reference_energies import ComputedEntries, JoinedEntries, single_points
from nucleate.energetics.relaxation import RelaxationSettings

LI, O, FE, CU, AU, NI = 3, 8, 26, 29, 79, 28


def entry(name: str, energy: float, **counts: int) -> ReferenceEntry:
    from nucleate.physics.elements import atomic_number

    return ReferenceEntry(name, tuple(sorted((atomic_number(s), n) for s, n in counts.items())), energy)


ENTRIES = [
    entry("Li", -1.9, Li=1),
    entry("O", -4.9, O=2),
    entry("Fe", -8.4, Fe=1),
    entry("Li2O", -4.8, Li=2, O=1),
    entry("Li2O high", -4.5, Li=4, O=2),
    entry("Fe2O3", -6.9, Fe=2, O=3),
    entry("FeO", -6.6, Fe=1, O=1),
]


def linear_programme(entries: Sequence[ReferenceEntry], composition: dict[int, int]) -> float:
    """Hull energy per atom by linear programming: no convex hull is built."""
    elements = sorted({z for e in entries for z, _ in e.composition})
    shares = np.array(
        [
            [dict(e.composition).get(z, 0) / sum(n for _, n in e.composition) for e in entries]
            for z in elements
        ]
    )
    target = np.array([composition.get(z, 0) for z in elements]) / sum(composition.values())
    found = linprog([e.energy_per_atom for e in entries], A_eq=shares, b_eq=target)
    assert found.success
    return float(found.fun)


@pytest.mark.parametrize("composition", [{LI: 2, O: 1}, {LI: 1, FE: 1, O: 2}, {FE: 3, O: 4}, {O: 1}])
def test_one_composition_alone_lies_where_the_diagram_of_pymatgen_puts_it(
    composition: dict[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    by_diagram = ReferenceHull(FixedEntries(ENTRIES)).place(composition, -5.0)
    monkeypatch.setattr(hull_module, "MAX_DIAGRAM_ELEMENTS", 0)
    alone = ReferenceHull(FixedEntries(ENTRIES)).place(composition, -5.0)
    assert alone.energy_above_hull == pytest.approx(by_diagram.energy_above_hull, abs=1e-8)
    assert alone.formation_energy == pytest.approx(by_diagram.formation_energy, abs=1e-8)
    assert dict(alone.decomposition) == pytest.approx(dict(by_diagram.decomposition), abs=1e-8)
    assert alone.completeness == by_diagram.completeness
    assert ReferenceHull(FixedEntries(ENTRIES)).diagram(frozenset(composition)) is None


def test_seventeen_elements_have_a_place() -> None:
    rng = np.random.default_rng(0)
    numbers = range(3, 20)
    entries = [ReferenceEntry(str(z), ((z, 1),), float(rng.normal())) for z in numbers]
    for i in range(600):
        chosen = sorted(rng.choice(numbers, size=rng.integers(2, 5), replace=False).tolist())
        entries.append(ReferenceEntry(f"c{i}", tuple((z, int(rng.integers(1, 4))) for z in chosen), -2.0))
    place = ReferenceHull(FixedEntries(entries)).place(dict.fromkeys(numbers, 1), 0.0)
    assert place.is_known
    assert place.energy_above_hull > 1
    assert sum(share for _, share in place.decomposition) == pytest.approx(1)


@pytest.mark.parametrize(
    "composition", [{LI: 2, O: 1}, {LI: 1, FE: 1, O: 2}, {FE: 3, O: 4}, {LI: 5, FE: 1, O: 4}, {O: 1}]
)
def test_the_hull_is_that_of_linear_programming(composition: dict[int, int]) -> None:
    hull = ReferenceHull(FixedEntries(ENTRIES))
    place = hull.place(composition, -5.0)
    within = [e for e in ENTRIES if e.system <= frozenset(composition)]
    assert place.energy_above_hull == pytest.approx(-5.0 - linear_programme(within, composition), abs=1e-8)
    assert sum(share for _, share in place.decomposition) == pytest.approx(1.0)
    energies = {e.id: e.energy_per_atom for e in ENTRIES}
    mixed = sum(energies[name] * share for name, share in place.decomposition)
    assert mixed == pytest.approx(-5.0 - place.energy_above_hull, abs=1e-8)


def test_random_hulls_too(rng: np.random.Generator) -> None:
    entries = [entry(s, 0.0, **{s: 1}) for s in ("Li", "O", "Fe", "Cu")]
    for i in range(40):
        counts = dict(zip(("Li", "O", "Fe", "Cu"), rng.integers(0, 4, size=4).tolist()))
        counts = {s: n for s, n in counts.items() if n}
        if counts:
            entries.append(entry(f"c{i}", float(rng.normal(-0.3, 0.4)), **counts))
    hull = ReferenceHull(FixedEntries(entries))
    for _ in range(15):
        composition = {z: int(n) for z, n in zip((LI, O, FE, CU), rng.integers(1, 5, size=4))}
        place = hull.place(composition, 0.0)
        assert place.energy_above_hull == pytest.approx(-linear_programme(entries, composition), abs=1e-7)


def test_places_above_on_and_below() -> None:
    hull = ReferenceHull(FixedEntries(ENTRIES))
    assert hull.place({LI: 2, O: 1}, -4.8).energy_above_hull == pytest.approx(0.0, abs=1e-12)
    assert hull.place({LI: 2, O: 1}, -4.5).energy_above_hull == pytest.approx(0.3)
    assert hull.place({LI: 2, O: 1}, -5.0).energy_above_hull == pytest.approx(-0.2)
    formation = hull.place({LI: 2, O: 1}, -4.8).formation_energy
    assert formation == pytest.approx(-4.8 - (2 * -1.9 + -4.9) / 3)
    assert hull.place({LI: 1}, -1.8).energy_above_hull == pytest.approx(0.1)


def test_missing_chemistry_is_unknown_and_named() -> None:
    hull = ReferenceHull(FixedEntries(ENTRIES))
    unknown = hull.place({LI: 1, CU: 1}, -3.0)
    assert unknown.energy_above_hull is None
    assert not unknown.is_known
    assert unknown.completeness.missing_elements == ("Cu",)
    elements_only = hull.place({LI: 1, FE: 1}, -5.0)
    assert elements_only.energy_above_hull is not None
    assert not elements_only.is_known  # no Li-Fe compound: the elements alone are no hull
    ternary = hull.place({LI: 1, FE: 1, O: 2}, -5.0)
    assert ternary.is_known
    assert ternary.completeness.subsystems == ((2, 3), (0, 1))
    assert ternary.completeness.covered == pytest.approx(0.5)
    assert ternary.completeness.num_entries == len(ENTRIES)
    assert hull.place({LI: 1}, float("nan")).energy_above_hull is None


def test_the_diagram_of_a_system_is_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import pymatgen.analysis.phase_diagram as module

    built = []
    original = module.PhaseDiagram

    class Counted(original):
        def __init__(self, points):
            built.append(1)
            super().__init__(points)

    monkeypatch.setattr(module, "PhaseDiagram", Counted)
    hull = ReferenceHull(FixedEntries(ENTRIES))
    for energy in (-4.0, -5.0, -6.0):
        hull.place({LI: 1, FE: 1, O: 2}, energy)
        hull.place({O: 4, FE: 3}, energy)
    assert len(built) == 2


def test_there_are_references_of_89_elements_with_their_candidates() -> None:
    elements = bundled_elements()
    assert len(elements) == 89
    assert {84, 85, 86, 87, 88}.isdisjoint(elements)
    for z in elements:
        candidates = element_candidates(z)
        assert len(candidates) >= 3
        believed = [c.chgnet_energy for c in candidates if c.chgnet_energy is not None]
        assert believed == sorted(believed)
        assert all(set(c.crystal.atomic_numbers.tolist()) == {z} for c in candidates)


@pytest.mark.parametrize(
    ("symbol", "energy"),
    # corrected energies of the Materials Project's ground states, eV/atom, that CHGNet was trained on
    [("Si", -5.42), ("Fe", -8.47), ("Cu", -4.10), ("Al", -3.75), ("O", -4.95), ("N", -8.33), ("Mg", -1.60)],
)
def test_the_energies_are_near_the_materials_project(symbol: str, energy: float) -> None:
    from nucleate.physics.elements import atomic_number

    z = atomic_number(symbol)
    found = ElementReferences(chgnet()).entries(frozenset((z,)))[0]
    assert found.energy_per_atom == pytest.approx(energy, abs=0.15)


@pytest.mark.parametrize("z", [CU, 14])
def test_the_shipped_energies_are_those_of_their_crystals(z: int) -> None:
    best = element_candidates(z)[0]
    result = relax([best.crystal], chgnet(), settings=RelaxationSettings(fmax=0.01))[0]
    shipped = ElementReferences(chgnet()).entries(frozenset((z,)))[0].energy_per_atom
    assert result.energy_per_atom == pytest.approx(shipped, abs=1e-3)
    assert best.chgnet_energy == pytest.approx(shipped, abs=1e-5)


def test_another_potential_relaxes_the_candidates_itself(tmp_path: Path) -> None:
    potential = Counting(emt())
    references = ElementReferences(potential, cache=ResultCache(tmp_path))
    found = references.entries(frozenset((CU,)))[0]
    assert found.energy_per_atom == pytest.approx(relax([bundled("cu")], emt())[0].energy_per_atom, abs=0.01)
    known = potential.cells
    references.entries(frozenset((CU,)))
    assert potential.cells == known
    assert references.entries(frozenset((84,))) == []
    assert references.entries(frozenset((CU, AU))) == []


def alloys(rng: np.random.Generator) -> dict[System, list[tuple[str, Crystal]]]:
    pair = frozenset((CU, AU))
    return {
        pair: [
            ("cu3au", rattled(bundled("cu3au"), rng, strain=0.01)),
            ("cuau", bundled("cuau")),
            ("squeezed", rattled(bundled("cu3au"), rng, strain=0.15)),
        ]
    }


def test_reference_energies_are_computed_where_they_are_asked_for(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    records = alloys(rng)
    asked: list[System] = []

    def of(system: System) -> list[tuple[str, Crystal]]:
        asked.append(system)
        return records[system]

    potential = Counting(emt())
    cache = ResultCache(tmp_path)
    elements = ElementReferences(potential, cache=cache)
    source = ComputedEntries(records, of, elements=elements, potential=potential, cache=cache)
    hull = ReferenceHull(JoinedEntries(elements, source))
    assert hull.place({CU: 1}, 0.0).energy_above_hull is not None
    assert asked == []
    place = hull.place({CU: 3, AU: 1}, 1.0)
    assert place.is_known
    assert set(asked) == {frozenset((CU, AU))}
    found = {e.id: e.energy_per_atom for e in source.entries(frozenset((CU, AU)))}
    relaxed = relax([bundled("cu3au")], emt())[0].energy_per_atom
    assert found["cu3au"] == pytest.approx(relaxed, abs=1e-3)  # near the hull: relaxed
    squeezed = records[frozenset((CU, AU))][2][1]
    energy, _ = single_points([squeezed], emt())[0]
    assert found["squeezed"] == pytest.approx(energy, abs=1e-9)  # far above it: as it is
    known = potential.cells
    again = ComputedEntries(records, of, elements=elements, potential=potential, cache=ResultCache(tmp_path))
    assert {e.id: e.energy_per_atom for e in again.entries(frozenset((CU, AU)))} == found
    assert potential.cells == known


def test_records_the_potential_cannot_do_are_named_and_left_out(rng: np.random.Generator) -> None:
    records = alloys(rng) | {frozenset((NI,)): [("ni", bundled("ni"))]}
    potential = Faulty(emt(), element=NI, how="raise")
    elements = ElementReferences(emt())
    source = ComputedEntries(records, records.__getitem__, elements=elements, potential=potential, window=0.0)
    assert source.entries(frozenset((NI,))) == []
    assert "no convergence" in source.problems["ni"]
    assert len(source.entries(frozenset((CU, AU)))) == 3
    assert source.entries(frozenset((LI,))) == []
