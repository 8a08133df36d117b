"""The matcher against pymatgen's StructureMatcher, and what must and must not match."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher

from nucleate.crystal import UnitCell, encode
from nucleate.crystal.convert import unit_cell_to_pymatgen
from nucleate.data.bundled import bundled_crystal, load_bundled
from nucleate.errors import ConfigError
from nucleate.evaluation.matcher import Matcher
from nucleate.evaluation.reduced_cell import reduce_cell

TOLERANCES = ((0.2, 0.3, 5.0), (0.3, 0.5, 10.0))
NAMES = [c.id for c in load_bundled()]


def supercell(cell: UnitCell, transformation: np.ndarray) -> UnitCell:
    made = unit_cell_to_pymatgen(cell).make_supercell(transformation, in_place=False)
    return UnitCell(
        np.array(made.lattice.matrix), np.array(made.frac_coords), np.array([s.specie.Z for s in made])
    )


def mirrored(cell: UnitCell) -> UnitCell:
    return UnitCell(cell.lattice, -cell.frac_coords, cell.atomic_numbers)


def permuted_axes(cell: UnitCell) -> UnitCell:
    return UnitCell(cell.lattice[[1, 2, 0]], cell.frac_coords[:, [1, 2, 0]], cell.atomic_numbers)


def rattled(cell: UnitCell, distance: float, rng: np.random.Generator) -> UnitCell:
    step = rng.normal(size=cell.frac_coords.shape) * distance / 3**0.5
    return UnitCell(cell.lattice, cell.frac_coords + step @ np.linalg.inv(cell.lattice), cell.atomic_numbers)


def primitive_cells(largest: int) -> list[UnitCell]:
    cells = [encode(c.unit_cell).crystal.unit_cell("primitive") for c in load_bundled()]
    return [cell for cell in cells if cell.num_atoms <= largest][::2]


def test_reduced_cells_have_the_sites_and_parameters_of_pymatgens() -> None:
    for entry in load_bundled()[::3]:
        ours = reduce_cell(entry.unit_cell)
        theirs = unit_cell_to_pymatgen(entry.unit_cell).get_reduced_structure().get_primitive_structure()
        assert ours.num_sites == len(theirs), entry.id
        lengths, angles = ours.parameters
        np.testing.assert_allclose(np.sort(lengths), np.sort(theirs.lattice.abc), atol=1e-3)
        np.testing.assert_allclose(np.sort(angles), np.sort(theirs.lattice.angles), atol=0.1)


@pytest.mark.parametrize(("ltol", "stol", "angle_tol"), TOLERANCES)
def test_agrees_with_structure_matcher_on_distorted_crystals(
    ltol: float, stol: float, angle_tol: float, rng: np.random.Generator
) -> None:
    matcher = Matcher(ltol, stol, angle_tol)
    oracle = StructureMatcher(ltol=ltol, stol=stol, angle_tol=angle_tol)
    outcomes = []
    for cell in primitive_cells(12):
        strain = np.eye(3) + rng.normal(size=(3, 3)) * rng.choice([0.01, 0.05, 0.15])
        other = rattled(cell, rng.choice([0.05, 0.4, 1.0]), rng)
        other = UnitCell(other.lattice @ strain, other.frac_coords, other.atomic_numbers)
        first, second = unit_cell_to_pymatgen(cell), unit_cell_to_pymatgen(other)
        fits, rms = oracle.fit(first, second), oracle.get_rms_dist(first, second)
        ours = reduce_cell(cell), reduce_cell(other)
        assert matcher.fits(*ours) == fits
        match = matcher.best_match(*ours)
        assert (match is None) == (rms is None)
        if match is not None:
            assert match.rms == pytest.approx(rms[0], abs=2e-3)
        outcomes.append(fits)
    assert 0.2 < np.mean(outcomes) < 0.9  # a control: both outcomes occur


def test_agrees_with_structure_matcher_on_crystals_of_one_formula() -> None:
    by_formula: dict[str, list[UnitCell]] = {}
    for entry in load_bundled():
        if entry.unit_cell.num_atoms <= 40:
            formula = unit_cell_to_pymatgen(entry.unit_cell).composition.reduced_formula
            by_formula.setdefault(formula, []).append(entry.unit_cell)
    matcher, oracle, pairs = Matcher(), StructureMatcher(), 0
    for cells in by_formula.values():
        for i in range(len(cells)):
            for j in range(i):
                expected = oracle.fit(unit_cell_to_pymatgen(cells[i]), unit_cell_to_pymatgen(cells[j]))
                assert matcher.fits(reduce_cell(cells[i]), reduce_cell(cells[j])) == expected
                pairs += 1
    assert pairs > 10


@pytest.mark.parametrize("name", NAMES[::12])
def test_copies_match_and_other_species_do_not(name: str, rng: np.random.Generator) -> None:
    cell, matcher = encode(bundled_crystal(name).unit_cell).crystal.unit_cell("primitive"), Matcher()
    reference = reduce_cell(cell)
    copies = {
        "itself": cell,
        "mirror image": mirrored(cell),
        "axes permuted": permuted_axes(cell),
        "supercell": supercell(cell, np.array([[2, 0, 0], [0, 1, 0], [1, 0, 1]])),
        "rattled": rattled(cell, 0.02, rng),
        "swollen": UnitCell(cell.lattice * 1.3, cell.frac_coords, cell.atomic_numbers),
    }
    for kind, copy in copies.items():
        assert matcher.fits(reference, reduce_cell(copy)), kind
    numbers = np.where(cell.atomic_numbers == cell.atomic_numbers[0], 118, cell.atomic_numbers)
    other = reduce_cell(UnitCell(cell.lattice, cell.frac_coords, numbers))
    assert not matcher.fits(reference, other)


def test_swapped_species_of_a_perovskite_do_not_match() -> None:
    cell = bundled_crystal("srtio3-strontium-titanate").unit_cell
    swapped = cell.atomic_numbers.copy()
    swapped[cell.atomic_numbers == 38], swapped[cell.atomic_numbers == 22] = 22, 38
    other = UnitCell(cell.lattice, cell.frac_coords, swapped)
    assert not Matcher().fits(reduce_cell(cell), reduce_cell(other))


def test_matching_is_not_transitive() -> None:
    """A and C match B, but not each other: why groups depend on a rule."""
    matcher = Matcher()
    lattice = np.diag([4.0, 4.0, 4.0])

    def at(ratio: float) -> UnitCell:
        return UnitCell(lattice * [1, 1, ratio], np.zeros((1, 3)), np.array([29]))

    a, b, c = (reduce_cell(at(ratio)) for ratio in (1.0, 1.25, 1.5))
    assert matcher.fits(a, b)
    assert matcher.fits(b, c)
    assert not matcher.fits(a, c)


def test_the_match_says_where_each_site_lies(rng: np.random.Generator) -> None:
    cell = bundled_crystal("sio2-alpha-quartz-p3-121").unit_cell
    first, second = reduce_cell(cell), reduce_cell(rattled(cell, 0.05, rng))
    match = Matcher().best_match(first, second)
    assert match is not None
    np.testing.assert_array_equal(first.atomic_numbers[match.mapping], second.atomic_numbers)
    on_basis = first.frac_coords @ np.linalg.inv(match.basis)
    difference = on_basis[match.mapping] - second.frac_coords - match.translation
    difference -= np.rint(difference)
    distances = np.linalg.norm(difference @ second.lattice, axis=1)
    expected = match.rms * (second.volume / second.num_sites) ** (1 / 3)
    assert np.sqrt(np.mean(distances**2)) == pytest.approx(expected, rel=0.02)


def test_tolerances_must_be_positive() -> None:
    with pytest.raises(ConfigError, match="stol"):
        Matcher(stol=0.0)
