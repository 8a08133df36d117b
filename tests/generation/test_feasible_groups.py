"""Feasible groups and templates: every one listed is real, known ones are listed."""

from __future__ import annotations

import numpy as np
import pytest

from nucleate.crystal import Crystal, space_group
from nucleate.crystal.encoding import pseudo_symmetry
from nucleate.generation.condition import Condition
from nucleate.generation.feasible_groups import FeasibleGroup, feasible_groups
from nucleate.generation.template_notation import parse_template


def _crystal(group: FeasibleGroup, template: str, rng: np.random.Generator) -> Crystal:
    """A crystal of the template with random geometry."""
    orbits = parse_template(template, group.space_group_number).orbits
    found = space_group(group.space_group_number)
    params = rng.normal(0, 0.1, found.lattice_subspace.num_params)
    params[0] = 1.7
    positions = np.array([orbit.position for orbit in orbits])
    coords = rng.random((len(orbits), 3)) * (
        np.arange(3) < np.array(found.num_free_coords)[positions][:, None]
    )
    elements = np.array([orbit.element for orbit in orbits])
    return Crystal(group.space_group_number, params, positions, elements, coords)


def test_perovskite_is_among_the_groups_of_its_formula(rng: np.random.Generator) -> None:
    groups = {g.space_group_number: g for g in feasible_groups(Condition(formula="SrTiO3", num_atoms=(5, 5)))}
    assert len(groups) == 36
    assert set(groups[221].templates) == {"Sr:1a Ti:1b O:3c", "Sr:1a Ti:1b O:3d"}
    assert groups[221].complete
    assert groups[221].num_atoms == (5,)
    assert 225 not in groups


@pytest.mark.parametrize("formula", ["NaCl", "TiO2"])
def test_a_crystal_of_every_template_has_exactly_its_group(formula: str, rng: np.random.Generator) -> None:
    condition = Condition(formula=formula, num_atoms=(1, 6), space_groups=tuple(range(75, 231, 4)))
    for group in feasible_groups(condition, max_templates=3):
        for template in group.templates:
            crystal = _crystal(group, template, rng)
            assert crystal.num_atoms_primitive == group.num_atoms[0]
            assert crystal.formula == "".join(sorted({"NaCl": ["Cl", "Na"], "TiO2": ["O2", "Ti"]}[formula]))
            found = pseudo_symmetry(crystal.unit_cell("primitive"), tolerances=(1e-4,))[1e-4]
            assert found == group.space_group_number, template


def test_a_long_list_is_cut_and_says_so() -> None:
    (group,) = feasible_groups(
        Condition(formula="SrTiO3", space_groups=(2,), num_atoms=(20, 20)), max_templates=5
    )
    assert len(group.templates) == 5
    assert not group.complete
    assert len(set(group.templates)) == 5


def test_a_search_that_stopped_at_its_bound_is_not_called_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many templates may be listed: partial ones that lead to none count for the bound too."""
    condition = Condition(formula="NaCl", space_groups=(3,), num_atoms=(6, 6))
    (whole,) = feasible_groups(condition, max_templates=10_000)
    assert whole.complete
    monkeypatch.setattr("nucleate.generation.feasible_groups.MAX_NODES", 100)
    (part,) = feasible_groups(condition, max_templates=10_000)
    assert 0 < len(part.templates) < len(whole.templates)
    assert not part.complete
