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


@pytest.mark.parametrize("variant", ["shipped", "without tensors", "reciprocal", "coarse"])
def test_products_counted_by_hand_are_those_torch_counts(variant: str) -> None:
    """To a tenth: the first layer has no vectors to be differentiated, which the hand leaves out."""
    from network_cost import counted_operations, counts, crystals, network_of, operations_and_bytes

    for number, orbits in ((1, 4), (62, 2)):
        network, batch = network_of(variant), crystals(number, orbits, 2)
        n = counts(network, batch)
        assert n["orbits"] == 2 * orbits
        assert n["atoms"] == n["orbits"] * (8 if number == 62 else 1)
        assert (n["stars"] > 0, n["bonds"] > 0) == (variant == "reciprocal", variant == "coarse")
        by_hand, _ = operations_and_bytes(network.config, n)
        assert 0.9 < counted_operations(network, batch) / by_hand < 1.1


def test_the_cost_of_each_term_is_found_again() -> None:
    from network_cost import TERMS, explain

    cost = {"batch": 1e-3, "orbits": 8e-5, "edges": 4e-5}
    rng = np.random.default_rng(0)
    rows = [
        {term: int(rng.integers(1, 1000)) if term in cost else 0 for term in TERMS}
        for _ in range(len(cost) * 3)
    ]
    for row in rows:
        row["seconds"] = cost["batch"] + sum(cost[term] * row[term] for term in ("orbits", "edges"))
    assert explain(rows) == pytest.approx(cost)
    assert [row["fitted"] for row in rows] == pytest.approx([row["seconds"] for row in rows])
