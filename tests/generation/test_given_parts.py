"""Parts of a crystal given: they stay to the last digit, and have a say in what comes beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nucleate.crystal import Crystal
from nucleate.errors import ConditionError
from nucleate.generation.condition import Condition
from nucleate.generation.generator import CANDIDATES_FOR_GIVEN, Generation, Generator, load
from nucleate.generation.template_sampling import draw_templates
from nucleate.physics import volume_per_atom

CELL = (4.594, 4.594, 2.959, 90.0, 90.0, 90.0)
RUTILE = Condition(template="Ti:2a O:4f(0.305)", space_groups=(136,), lattice=CELL)
OXYGENS = Condition(template="O:4f(0.305) ...", space_groups=(136,), formula="TiO2", num_atoms=(6, 6))


@pytest.fixture(scope="module")
def shipped() -> Generator:
    return load()


def _oxygen(crystal: Crystal) -> float:
    """The coordinate of the first orbit on 4f, which is the given one."""
    at = np.flatnonzero(crystal.wyckoff_indices == 5)[0]
    return float(crystal.free_coords[at, 0])


def test_given_coordinates_are_kept_to_the_last_digit(generator: Generator) -> None:
    """With and without a cell, further orbits and open elements; what is open is sampled."""
    conditions = [
        replace(RUTILE, lattice=None),
        RUTILE,
        OXYGENS,
        replace(RUTILE, template="2a 4f(0.305)"),
        replace(RUTILE, template="2a 4f(0.305)", lattice=None),
        replace(RUTILE, template="O:4f(0.305) ...", num_atoms=(6, 14)),
        Condition(template="O:4f(0.305) Ti:8j", space_groups=(136,)),
    ]
    for condition in conditions:
        made = generator.generate(condition, 4, 2, steps=2, restarts=1, candidates=2)
        assert [_oxygen(crystal) for crystal in made] == [0.305] * 4
        volumes = {round(crystal.volume_per_atom * crystal.num_atoms, 6) for crystal in made}
        assert (volumes == {round(float(np.prod(CELL[:3])), 6)}) == (condition.lattice is not None)
    two = made[0].free_coords[1, :2], made[1].free_coords[1, :2]
    assert not np.allclose(*two)
    assert {crystal.formula for crystal in generator.generate(OXYGENS, 3, steps=2, candidates=2)} == {"O2Ti"}


def test_the_same_seed_gives_the_same_whatever_the_batch_size(generator: Generator) -> None:
    condition = replace(RUTILE, template="O:4f(0.305) ...", lattice=None, num_atoms=(6, 14))

    def made(**changes: int) -> Generation:
        return generator.generate(condition, 5, 3, steps=3, candidates=3, **changes)

    together, alone, side_by_side = made(), made(batch_size=1), made(batch_size=3, workers=2)
    for a, b, c in zip(together, alone, side_by_side, strict=True):
        for other in (b, c):
            np.testing.assert_array_equal(a.wyckoff_indices, other.wyckoff_indices)
            np.testing.assert_array_equal(a.atomic_numbers, other.atomic_numbers)
            np.testing.assert_allclose(a.free_coords, other.free_coords, atol=1e-3)


def test_given_coordinates_say_which_orbits_fit(shipped: Generator) -> None:
    """Beside rutile's oxygens titanium fits on 2a only; without a say of the coordinates it comes on 2b too."""

    def on_2a(candidates: int | None) -> int:
        made = shipped.generate(OXYGENS, 8, 0, candidates=candidates, steps=4, restarts=0)
        return sum(0 in crystal.wyckoff_indices for crystal in made)

    assert on_2a(1) < 7
    assert on_2a(None) == 8


def test_a_given_geometry_says_which_elements_fit(shipped: Generator) -> None:
    """In rock salt with the cell of RbCl large cations come beside chlorine; without its say they are of any size."""
    cell = (6.58, 6.58, 6.58, 90.0, 90.0, 90.0)
    condition = Condition(template="4a Cl:4b", space_groups=(225,), lattice=cell)

    def misfit(candidates: int | None) -> float:
        made = shipped.generate(condition, 24, 0, candidates=candidates)
        expected = [volume_per_atom(crystal.composition).mean for crystal in made]
        return float(np.abs(np.log(np.array(expected) * 8 / 6.58**3)).mean())

    assert misfit(None) < 0.5 * misfit(1)


def test_as_many_templates_as_said_are_tried(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    def counted(network: Any, condition: Condition, streams: Sequence[Any], **settings: Any) -> Any:
        drawn.append(len(streams))
        return draw_templates(network, condition, streams, **settings)

    monkeypatch.setattr("nucleate.generation.block_sampling.draw_templates", counted)
    condition = replace(RUTILE, template="2a O:4f(0.305)")
    for candidates, expected in ((1, 2), (5, 10), (None, 2 * CANDIDATES_FOR_GIVEN)):
        drawn.clear()
        generator.generate(condition, 2, candidates=candidates, steps=2)
        assert sum(drawn) == expected
    drawn.clear()
    generator.generate(RUTILE, 2, steps=2, candidates=3)  # one template: its candidates are geometries
    assert sum(drawn) == 2


def test_ranked_templates_are_refused_where_the_geometry_has_a_say(generator: Generator) -> None:
    with pytest.raises(ConditionError, match="without a look at the given geometry"):
        generator.generate(OXYGENS, 2, ranked=10)
    assert len(generator.generate(RUTILE, 2, ranked=10, steps=2)) == 2


def test_equal_templates_have_geometries_of_their_own(shipped: Generator) -> None:
    """Only one template has these orbits: candidates differ by their geometries, and the better ones are kept."""
    condition = Condition(template="O:4f(0.305) 2a", space_groups=(136,), formula="TiO2", num_atoms=(6, 6))
    one, many = (shipped.generate(condition, 6, 0, candidates=k, steps=2, restarts=0) for k in (1, 12))
    assert all(not np.array_equal(a.lattice_params, b.lattice_params) for a, b in zip(many, list(many)[1:]))
    assert np.mean([r.denoising_error for r in many.rows]) < np.mean([r.denoising_error for r in one.rows])


def test_a_run_with_a_parent_goes_on(generator: Generator, tmp_path: Path) -> None:
    settings = {"steps": 2, "candidates": 3, "batch_size": 2}
    first = generator.generate(OXYGENS, 3, 4, **settings, out=tmp_path)
    both = generator.generate(OXYGENS, 5, 4, **settings, out=tmp_path)
    alone = generator.generate(OXYGENS, 5, 4, **settings)
    for a, b in zip(first, both):
        np.testing.assert_array_equal(a.free_coords, b.free_coords)
    for a, b in zip(both, alone, strict=True):
        np.testing.assert_allclose(a.free_coords, b.free_coords, atol=1e-9)


def test_with_the_shipped_weights_given_parts_differ_in_no_bit(shipped: Generator) -> None:
    condition = Condition(template="O:4f(0.305) ...", space_groups=(136,), num_atoms=(6, 14))
    settings = {"steps": 2, "restarts": 1, "candidates": 3}
    together, alone = (shipped.generate(condition, 4, 3, **settings, batch_size=k) for k in (4, 1))
    for a, b in zip(together, alone, strict=True):
        for name in ("wyckoff_indices", "atomic_numbers", "free_coords", "lattice_params"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
