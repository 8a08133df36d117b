"""What the generator's benchmarks count: obeyed conditions, chosen answers, match rates, copies."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nucleate.crystal import Crystal, encode
from nucleate.data.bundled import load_bundled
from nucleate.models.checkpoint import default_weights, load_checkpoint

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True, scope="module")
def importable() -> Iterator[None]:
    """The benchmarks import each other from their own folder, as when they are run."""
    sys.path.insert(0, str(FOLDER))
    yield
    sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def crystals() -> dict[str, Crystal]:
    return {entry.id: encode(entry.unit_cell).crystal for entry in load_bundled()}


def test_every_crystal_obeys_what_was_read_off_it_and_others_do_not(crystals: dict[str, Crystal]) -> None:
    from obedience import KINDS, condition_of, is_obeyed

    chosen = list(crystals.values())[::20]
    for kind in KINDS:
        for number in (0, 1):
            conditions = [condition_of(kind, crystal, number) for crystal in chosen]
            assert all(is_obeyed(c, crystal) for c, crystal in zip(conditions, chosen)), kind
            crossed = [
                is_obeyed(condition, crystal)
                for i, condition in enumerate(conditions)
                for j, crystal in enumerate(chosen)
                if i != j
            ]
            assert sum(crossed) < 0.3 * len(crossed), kind


def test_a_shift_between_runs_is_measured_in_angstrom(crystals: dict[str, Crystal]) -> None:
    from obedience import shift_between

    rutile = next(c for c in crystals.values() if c.space_group_number == 136)
    moved = rutile.free_coords.copy()
    row, column = next((int(i), int(j)) for i, j in zip(*moved.nonzero()))
    moved[row, column] += 1e-3
    other = Crystal(136, rutile.lattice_params, rutile.wyckoff_indices, rutile.atomic_numbers, moved)
    found = shift_between(rutile, other)
    a = float(rutile.lattice[0, 0])
    assert shift_between(rutile, rutile) == 0
    assert found == pytest.approx(1e-3 * a * 2**0.5, rel=1e-6)  # (x, x, 0) and its images
    assert shift_between(rutile, next(c for c in crystals.values() if c.space_group_number == 225)) is None


def test_one_answer_is_chosen_without_the_truth() -> None:
    from structure_prediction import chosen, scored

    result = {
        "rms": [None, 0.1, None, 0.2],
        "errors": [0.3, 0.2, 0.1, 0.25],
        "templates": ["a", "b", "c", "b"],
        "energies": [-1.0, -1.5, None, -2.0],
    }
    assert chosen(result, "error") == 2
    assert chosen(result, "template") == 1
    assert chosen(result, "energy") == 3
    ranked = {**result, "shares": [0.6, 0.3, 0.09, 1e-5]}
    assert chosen(ranked, "first") == 0
    assert chosen(ranked, "both") == 1  # 0.5 eV/atom against a factor of 3e4
    found = scored([result["rms"], [None, None, None, None]])
    assert found["one_sample"] == 0.25
    assert found["best"] == 0.5
    assert found["best_rmse"] == pytest.approx((0.1 + 0.5) / 2)
    assert found["one_sample_rmse"] == pytest.approx((0.5 + 0.1 + 0.5 + 0.2 + 4 * 0.5) / 8)


def test_copies_are_told_from_new_crystals(crystals: dict[str, Crystal]) -> None:
    from small_data import checks

    ten = list(crystals.values())[:6]
    again, fresh = checks(ten, ten), checks(list(crystals.values())[30:36], ten)
    assert again["not_copies"]["value"] == 0
    assert fresh["not_copies"]["value"] == 1
    stretched = [Crystal(c.space_group_number, c.lattice_params * 1.01, *c_fields(c)) for c in ten]
    assert checks(stretched, ten)["not_copies"]["value"] == 0


def c_fields(crystal: Crystal) -> tuple:
    """Positions, elements and coordinates of a crystal."""
    return crystal.wyckoff_indices, crystal.atomic_numbers, crystal.free_coords


def test_a_network_is_sampled_by_the_process_it_was_trained_with(crystals: dict[str, Crystal]) -> None:
    """From the same numbers the weights called a diffusion's give other crystals than called a flow's."""
    from template_match import draw

    shipped = load_checkpoint(default_weights())
    truth = [c for c in crystals.values() if 1 <= c.num_free_coords <= 4][:6]
    diffusion = shipped.replace(process={"kind": "diffusion", "schedule": "linear", "solver": "multistep"})
    flow, again, other = (
        draw(one, truth, settings={"steps": 2, "guidance": {}}, first=0, seed=0, random=False)
        for one in (shipped, shipped, diffusion)
    )
    assert all(np.array_equal(a.free_coords, b.free_coords) for a, b in zip(flow, again))
    assert all(not np.allclose(a.free_coords, b.free_coords) for a, b in zip(flow, other))
