"""Histograms of bonds: counted right, judged right, shipped; distances of histograms against scipy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from scipy.stats import wasserstein_distance

from nucleate.crystal import UnitCell
from nucleate.evaluation.bond_distance import histogram_distance
from nucleate.evaluation.bond_statistics import (
    LENGTH_BINS,
    LENGTH_STEP,
    BondStatistics,
    bond_counts,
    build_statistics,
    judge_bonds,
    shipped_statistics,
)
from nucleate.evaluation.surroundings import surroundings

NACL = 11 * 128 + 17


def _salt(a: float) -> UnitCell:
    atoms = bulk("NaCl", "rocksalt", a=a)
    return UnitCell(np.array(atoms.cell), atoms.get_scaled_positions(), np.array(atoms.numbers))


@pytest.fixture(scope="module")
def salts() -> BondStatistics:
    """Two hundred rock salts with bonds around 2.82 Å."""
    rng = np.random.default_rng(0)
    return build_statistics(
        (_salt(2 * d) for d in rng.normal(2.82, 0.05, size=200)), source="salts", block=32
    )


def test_a_crystal_is_counted_by_hand() -> None:
    counts = bond_counts(surroundings(_salt(5.65)))
    assert counts.bonds.tolist() == [[NACL, int(2.825 / LENGTH_STEP), 12]]
    assert counts.coordination.tolist() == [[11, 6, 1], [17, 6, 1]]
    by_angle = {(z, degree): n for z, degree, n in counts.angles.tolist()}
    assert sum(by_angle.values()) == 2 * 15
    assert sum(n for (_, degree), n in by_angle.items() if degree in (89, 90)) == 24


def test_each_crystal_has_one_vote_whatever_its_cell(salts: BondStatistics) -> None:
    assert salts.num_crystals == 200
    assert salts.pairs.tolist() == [NACL]
    assert salts.lengths.sum() == pytest.approx(200)
    assert salts.coordination[11].tolist()[6] == pytest.approx(200)
    large = _salt(5.64)
    large = UnitCell(
        np.diag([2, 1, 1]) @ large.lattice,
        np.concatenate(
            [large.frac_coords @ np.diag([0.5, 1, 1]), large.frac_coords @ np.diag([0.5, 1, 1]) + [0.5, 0, 0]]
        ),
        np.tile(large.atomic_numbers, 2),
    )
    assert build_statistics([large], source="x").lengths.sum() == pytest.approx(1)


def test_usual_bonds_are_usual_and_compressed_ones_are_rare(salts: BondStatistics) -> None:
    usual = judge_bonds(bond_counts(surroundings(_salt(5.64))), salts)
    assert usual.rare_bonds == 0
    assert usual.smallest_tail > 0.2
    assert usual.rare_coordination == 0
    pressed = judge_bonds(bond_counts(surroundings(_salt(4.8))), salts)
    assert pressed.rare_bonds == 1
    assert pressed.smallest_tail < 0.01
    assert pressed.rarest_bond.startswith("Cl-Na 2.4")


def test_tails_are_empirical_probabilities(salts: BondStatistics) -> None:
    rng = np.random.default_rng(1)
    lengths = rng.normal(2.82, 0.05, size=2000)
    bins = (lengths / LENGTH_STEP).astype(int)
    tails = salts.length_tails(np.full(2000, NACL), bins)
    # Bonds from the same distribution: their tail probabilities are spread evenly.
    assert np.mean(tails < 0.2) == pytest.approx(0.2, abs=0.08)
    assert np.mean(tails < 0.01) < 0.06


def test_rare_pairs_are_judged_by_radii_and_unknown_ones_not_at_all(salts: BondStatistics) -> None:
    tails = salts.length_tails(np.array([3 * 128 + 9, 26 * 128 + 29]), np.array([100, 100]))
    assert np.isfinite(tails[0])  # a metal with a non-metal, as NaCl
    assert np.isnan(tails[1])  # no two metals among the salts


def test_arrays_carry_everything(salts: BondStatistics, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **salts.to_arrays())
    with np.load(tmp_path / "x.npz") as arrays:
        again = BondStatistics.from_arrays(arrays)
    assert np.array_equal(again.lengths, salts.lengths)
    assert (again.source, again.num_crystals) == ("salts", 200)


def test_shipped_statistics_know_real_bonds() -> None:
    shipped = shipped_statistics()
    assert shipped.num_crystals > 30_000
    assert shipped.lengths.sum(axis=1).min() > 19.9
    assert judge_bonds(bond_counts(surroundings(_salt(5.64))), shipped).rare_bonds == 0
    assert judge_bonds(bond_counts(surroundings(_salt(4.6))), shipped).rare_bonds == 1


def _crystals(lengths: np.ndarray) -> list[np.ndarray]:
    return [np.array([[NACL, int(d / LENGTH_STEP), 12]]) for d in lengths]


def test_distance_of_histograms_is_scipys_wasserstein_distance(salts: BondStatistics) -> None:
    lengths = np.random.default_rng(2).normal(2.95, 0.1, size=150)
    found = histogram_distance(_crystals(lengths), salts.pairs, salts.lengths, step=LENGTH_STEP)
    places = np.arange(LENGTH_BINS) * LENGTH_STEP
    expected = wasserstein_distance(
        (lengths / LENGTH_STEP).astype(int) * LENGTH_STEP, places, v_weights=salts.lengths[0]
    )
    assert found.value == pytest.approx(expected, rel=1e-9)
    assert found.ci95[0] < found.value < found.ci95[1]
    assert (found.num_crystals, found.covered) == (150, 1.0)


def test_distance_of_the_reference_to_itself_is_small_and_grows_when_bonds_are_moved(
    salts: BondStatistics,
) -> None:
    same = np.random.default_rng(0).normal(2.82, 0.05, size=200)
    near = histogram_distance(_crystals(same), salts.pairs, salts.lengths, step=LENGTH_STEP)
    far = histogram_distance(_crystals(same - 0.4), salts.pairs, salts.lengths, step=LENGTH_STEP)
    assert near.value < 0.01
    assert far.value == pytest.approx(0.4, abs=0.02)


def test_pairs_that_the_reference_does_not_have_are_not_compared(salts: BondStatistics) -> None:
    other = [np.array([[29 * 128 + 29, 120, 12]]), np.array([[NACL, 141, 12]]), np.zeros((0, 3), dtype=int)]
    found = histogram_distance(other, salts.pairs, salts.lengths, step=LENGTH_STEP)
    assert (found.num_crystals, found.covered) == (1, 0.5)
    nothing = histogram_distance(other[:1], salts.pairs, salts.lengths, step=LENGTH_STEP)
    assert nothing.value is None
