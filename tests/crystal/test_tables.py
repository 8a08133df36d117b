"""The shipped tables: complete, read-only, and what their scripts write."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from nucleate.crystal import space_group
from nucleate.crystal.tables import (
    NUM_GROUPS,
    NUM_POSITIONS,
    group_arrays,
    group_names,
    normalizer_arrays,
    starts,
)

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    yield
    for name in ("integer_lattice", "build_space_group_tables", "build_normalizer_tables"):
        sys.modules.pop(name, None)


def test_all_groups_and_positions_are_there() -> None:
    arrays = group_arrays()
    assert len(group_names()) == NUM_GROUPS == 230
    assert len(arrays["num_free"]) == NUM_POSITIONS == 1731
    assert arrays["operation_start"][-1] == len(arrays["rotations"]) == len(arrays["translations"])
    assert arrays["image_start"][-1] == len(arrays["images"])
    assert arrays["stabiliser_start"][-1] == len(arrays["stabiliser"])
    assert arrays["map_start"][-1] == len(arrays["map_linear"])
    assert (np.bincount(arrays["position_group"])[1:] == np.diff(arrays["position_start"])).all()
    normalizers = normalizer_arrays()
    assert normalizers["element_start"][-1] == len(normalizers["linear"]) == len(normalizers["shifts"])
    assert normalizers["entry_start"][-1] == len(normalizers["permutations"])


def test_inverse_and_mean_rotations() -> None:
    arrays = group_arrays()
    assert (arrays["inverse_rotations"] @ arrays["rotations"] == np.eye(3)).all()
    for n in range(NUM_GROUPS):
        rows = slice(arrays["operation_start"][n], arrays["operation_start"][n + 1])
        mean = arrays["mean_rotations"][n]
        assert np.allclose(mean, arrays["rotations"][rows].mean(axis=0))
        assert np.allclose(mean @ mean, mean)  # the mean over a group is a projector


@pytest.mark.parametrize("arrays", [group_arrays, normalizer_arrays])
def test_tables_cannot_be_written_to(arrays) -> None:
    for array in arrays().values():
        assert not array.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_starts() -> None:
    assert starts(np.array([2, 0, 3])).tolist() == [0, 2, 2, 5]


@pytest.mark.usefixtures("scripts")
@pytest.mark.parametrize("number", [1, 2, 5, 15, 43, 62, 88, 122, 146, 167, 178, 194, 214, 220])
def test_the_script_writes_the_positions_that_ship(number: int) -> None:
    from pyxtal.symmetry import Group

    import build_space_group_tables as script

    group = script.read_group(number)
    shipped = space_group(number)
    assert (np.array(group["rotations"]) == shipped.rotations).all()
    assert np.allclose(np.array(group["translations"], dtype=float), shipped.translations)
    listed = {p.letter: p.ops[0].as_xyz_str() for p in Group(number)}
    assert sorted(listed) == sorted(shipped.letters)
    for position in shipped.wyckoff_positions:
        B, c = script.parse_coordinates(listed[position.letter])
        d = position.num_free
        assert np.array_equal(B.astype(float).reshape(3, d), position.basis)
        assert np.array_equal(c.astype(float), position.origin)
        found = script.analyse_position(group, B, c)
        assert found["images"] == position.operation_indices.tolist()
        assert np.array_equal(found["period"].astype(float).reshape(d, d), position.period_lattice)
        if d:
            maps = [np.column_stack([M, v]).astype(float) for M, v in found["maps"]]
            shift = position.identification_shift[:, :, None]
            assert np.array_equal(maps, np.concatenate([position.identification_linear, shift], axis=2))


@pytest.mark.usefixtures("scripts")
def test_integer_lattice_algebra(rng: np.random.Generator) -> None:
    import integer_lattice as lattice

    for _ in range(40):
        rows, columns = rng.integers(1, 5, 2)
        matrix = rng.integers(-4, 5, (rows, columns))
        U, D, V = lattice.smith_normal_form(matrix)
        assert (U.dot(matrix).dot(V) == D).all()
        for unimodular in (U, V):
            assert abs(round(np.linalg.det(unimodular.astype(float)))) == 1
        diagonal = [D[i, i] for i in range(min(rows, columns))]
        assert not (D * ~np.eye(rows, columns, dtype=bool)).any()
        assert [d > 0 for d in diagonal] == [i < np.linalg.matrix_rank(matrix) for i in range(len(diagonal))]
        b = matrix.astype(object).dot(rng.integers(0, 7, columns).astype(object))
        solutions, free = lattice.solve_congruences(matrix, lattice.fractions(b, 7))
        assert solutions
        for s in solutions:
            residual = matrix.astype(object).dot(s) - lattice.fractions(b, 7)
            assert all(x.denominator == 1 for x in residual)
        assert not matrix.astype(object).dot(free).any()
    assert lattice.solve_congruences([[0]], lattice.fractions([1], 2)) is None
