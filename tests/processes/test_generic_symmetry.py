"""Templates that necessarily have a higher group: against moyopy's symmetry search, and known cases."""

from __future__ import annotations

import moyopy
import numpy as np
import pytest

from nucleate.crystal import Crystal, space_group
from nucleate.processes.generic_symmetry import element_pattern, is_generic, symmetric_position_sets


def _random_template(number: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    positions = space_group(number).wyckoff_positions
    # small orbits make more coincidences, and keep the oracle fast
    candidates = [p for p in positions if p.multiplicity_primitive <= 12] or [positions[0]]
    orbits: list[tuple[int, int]] = []
    for _ in range(int(rng.integers(1, 5))):
        position = candidates[rng.integers(len(candidates))]
        if position.num_free or position.index not in [p for p, _ in orbits]:
            orbits.append((position.index, int(rng.choice([8, 22, 38]))))
    return orbits


def _found_by_moyopy(number: int, orbits: list[tuple[int, int]], rng: np.random.Generator) -> bool:
    """Whether moyopy finds exactly this group, with no finer translations, on a crystal with random parameters."""
    group = space_group(number)
    params = rng.uniform(0.06, 0.2, group.lattice_subspace.num_params)
    params *= rng.choice([-1, 1], len(params))
    params[0] = np.log(40.0) / 3**0.5
    free = np.zeros((len(orbits), 3))
    for row, (index, _) in zip(free, orbits):
        d = group.wyckoff_positions[index].num_free
        row[:d] = rng.uniform(size=d)
    indices, elements = (np.array(column, dtype=np.int64) for column in zip(*orbits))
    cell = Crystal(number, params, indices, elements, free).unit_cell("primitive")
    dataset = moyopy.MoyoDataset(
        moyopy.Cell(cell.lattice.tolist(), cell.frac_coords.tolist(), cell.atomic_numbers.tolist()),
        symprec=1e-4,
    )
    return dataset.number == number and len(dataset.prim_std_cell.numbers) == len(cell.atomic_numbers)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_agrees_with_moyopy_for_random_templates_of_every_group(seed: int) -> None:
    rng = np.random.default_rng(seed)
    wrong, higher = [], 0
    for number in range(1, 231):
        orbits = _random_template(number, rng)
        expected = _found_by_moyopy(number, orbits, rng)
        higher += not expected
        if is_generic(number, element_pattern(orbits)) != expected:
            wrong.append((number, orbits, expected))
    assert not wrong
    assert 30 < higher < 200  # both answers occur often


@pytest.mark.parametrize(
    ("number", "orbits", "generic"),
    [
        (221, [(0, 29)], True),  # simple cubic
        (221, [(0, 29), (2, 29)], False),  # the same element on a and c: face-centred cubic
        (221, [(0, 29), (2, 79)], True),  # Cu3Au
        (221, [(0, 11), (1, 17)], True),  # CsCl
        (195, [(0, 11), (1, 17)], False),  # CsCl has a higher group than P23
        (1, [(0, 6)], False),  # one atom has an inversion centre
        (1, [(0, 6), (0, 6)], False),  # so have two of one element
        (1, [(0, 6), (0, 8)], True),  # and not two of different ones
        (1, [(0, 6)] * 3, True),
        (123, [(8, 6)], False),  # 4i alone repeats in a smaller cell of the same type of group
    ],
)
def test_known_templates(number: int, orbits: list[tuple[int, int]], generic: bool) -> None:
    assert is_generic(number, element_pattern(orbits)) is generic


def test_more_than_three_equal_orbits_change_nothing() -> None:
    """The cap of ``element_pattern`` is harmless: four and five orbits of one element on one position are as three."""
    for number in range(1, 231):
        for position in space_group(number).wyckoff_positions:
            if position.num_free and position.multiplicity_primitive <= 8:
                three = is_generic(number, ((position.index,) * 3,))
                assert is_generic(number, ((position.index,) * 4,)) == three
                assert is_generic(number, ((position.index,) * 5,)) == three


def test_templates_inside_a_symmetric_set_are_not_generic(rng: np.random.Generator) -> None:
    """And the general position of a group with no polar direction stands in no such set."""
    for number in range(1, 231):
        group = space_group(number)
        for members in symmetric_position_sets(number):
            chosen = sorted(members)
            orbits = [(p, int(z)) for p, z in zip(chosen, rng.integers(1, 90, len(chosen)))]
            assert not is_generic(number, element_pattern(orbits))
            assert (
                len(group.letters) - 1 not in members
                or group.normalizer.directions.shape[1] > 0
                or number in (1, 2)
            )


def test_an_empty_template_is_not_generic() -> None:
    assert not is_generic(2, ())


def test_real_crystals_are_generic(shared_data) -> None:
    """Every real crystal has its group, so its template must be possible."""
    import pyarrow.parquet as pq

    from nucleate.crystal import UnitCell, encode

    rows = pq.read_table(
        shared_data / "mp_40.parquet", columns=["numbers", "lattice", "frac_coords"]
    ).to_pylist()
    for row in rows[::4]:
        cell = UnitCell(
            np.array(row["lattice"]).reshape(3, 3),
            np.array(row["frac_coords"]).reshape(-1, 3),
            np.array(row["numbers"], dtype=np.int64),
        )
        crystal = encode(cell).crystal
        orbits = zip(crystal.wyckoff_indices.tolist(), crystal.atomic_numbers.tolist())
        assert is_generic(crystal.space_group_number, element_pattern(orbits))
