"""The bundled crystals: what they say of themselves is true, and every one survives encoding and decoding."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import sys
import warnings
from collections import Counter
from pathlib import Path
from types import ModuleType

import moyopy
import numpy as np
import pytest
import spglib
from ase.data import covalent_radii
from pymatgen.analysis.prototypes import AflowPrototypeMatcher
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Composition, Element

from nucleate.crystal import UnitCell, encode, space_group
from nucleate.crystal.pymatgen_structure import unit_cell_to_pymatgen
from nucleate.data.bundled import BundledCrystal, bundled_crystal, load_bundled

ROOT = Path(__file__).resolve().parents[2]
BUNDLED = load_bundled()
each = pytest.mark.parametrize("bundled", BUNDLED, ids=lambda crystal: crystal.id)


def moyopy_group(cell: UnitCell, symprec: float) -> int:
    foreign = moyopy.Cell(cell.lattice.tolist(), cell.frac_coords.tolist(), cell.atomic_numbers.tolist())
    return moyopy.MoyoDataset(foreign, symprec=symprec, rotate_basis=False).number


def spglib_group(cell: UnitCell, symprec: float) -> int:
    foreign = (cell.lattice, cell.frac_coords, cell.atomic_numbers)
    return spglib.get_symmetry_dataset(foreign, symprec=symprec).number


def shortest_over_radii(cell: UnitCell) -> float:
    """Shortest distance in units of the two covalent radii, periodic images included."""
    shifts = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3), axis=-1).reshape(-1, 3)
    best = np.inf
    radii = covalent_radii[cell.atomic_numbers]
    for i in range(cell.num_atoms):
        difference = (cell.frac_coords - cell.frac_coords[i])[None] + shifts[:, None]
        distance = np.linalg.norm(difference @ cell.lattice, axis=-1)
        distance[distance < 1e-6] = np.inf
        best = min(best, float((distance / (radii + radii[i])).min()))
    return best


def test_set_is_large_and_covers_all_systems() -> None:
    assert len(BUNDLED) >= 70
    assert len({crystal.id for crystal in BUNDLED}) == len(BUNDLED)
    systems = Counter(crystal.crystal_system for crystal in BUNDLED)
    assert len(systems) == 7
    assert min(systems.values()) >= 5


def test_kinds_that_break_encoders_are_in() -> None:
    groups = {crystal.space_group_number for crystal in BUNDLED}
    assert {152, 154} <= groups, "both hands of an enantiomorphic pair"
    assert {161, 186} & groups, "polar groups"
    assert any(space_group(n).lattice_system == "rhombohedral" for n in groups)
    assert {len(space_group(n).centring_vectors) for n in groups} == {1, 2, 3, 4}
    settings = {crystal.space_group_setting for crystal in BUNDLED}
    assert {"C -1", "A 1 2/a 1", "P b n m", "F d d d:2", "I 41/a m d:1"} <= settings
    assert max(encode(crystal.unit_cell).crystal.num_free_coords for crystal in BUNDLED) > 100


@each
def test_formula_and_source(bundled: BundledCrystal) -> None:
    symbols = [Element.from_Z(z).symbol for z in bundled.unit_cell.atomic_numbers.tolist()]
    counted = Composition(Counter(symbols)).reduced_composition
    assert counted.almost_equals(Composition(bundled.formula).reduced_composition)
    assert re.search(r"\(1[89]\d\d\)|\(20\d\d\)|AFLOW", bundled.source)


@each
def test_stated_group_is_found(bundled: BundledCrystal) -> None:
    for symprec in (1e-2, 1e-3, 1e-5):
        assert moyopy_group(bundled.unit_cell, symprec) == bundled.space_group_number
        assert spglib_group(bundled.unit_cell, symprec) == bundled.space_group_number


@each
def test_wyckoff_letters_have_the_multiplicity_of_their_orbits(bundled: BundledCrystal) -> None:
    group = space_group(bundled.space_group_number)
    # A cell of another size than the standard one (C -1) holds a multiple of the atoms.
    counted = sum(group.wyckoff_position(letter).multiplicity for _, letter, _ in bundled.sites)
    assert bundled.unit_cell.num_atoms in (counted, 2 * counted)
    assert len(bundled.sites) == encode(bundled.unit_cell).crystal.num_orbits


@each
def test_distances_are_plausible(bundled: BundledCrystal) -> None:
    assert 0.65 < shortest_over_radii(bundled.unit_cell) < 1.3


@each
def test_round_trip(bundled: BundledCrystal) -> None:
    encoded = encode(bundled.unit_cell)
    crystal = encoded.crystal
    assert crystal.space_group_number == bundled.space_group_number
    assert encoded.max_displacement < 1e-8
    assert encoded.max_strain < 1e-8
    volume_per_atom = bundled.unit_cell.volume / bundled.unit_cell.num_atoms
    assert crystal.volume_per_atom == pytest.approx(volume_per_atom, rel=1e-8)
    original = encoded.unit_cell()
    np.testing.assert_allclose(original.lattice, bundled.unit_cell.lattice, atol=1e-8)
    shift = original.frac_coords - bundled.unit_cell.frac_coords
    np.testing.assert_allclose(shift - np.round(shift), 0.0, atol=1e-8)
    rebuilt = crystal.unit_cell("primitive")
    assert moyopy_group(rebuilt, 1e-4) == bundled.space_group_number
    assert spglib_group(rebuilt, 1e-4) == bundled.space_group_number
    matcher = StructureMatcher()
    assert matcher.fit(unit_cell_to_pymatgen(rebuilt), unit_cell_to_pymatgen(bundled.unit_cell))


def test_displaced_atom_is_noticed() -> None:
    """Negative control of the group and round-trip tests: 0.05 Å off is another group."""
    rutile = bundled_crystal("tio2-rutile").unit_cell
    moved = rutile.frac_coords.copy()
    moved[2, 2] += 0.05 / np.linalg.norm(rutile.lattice[2])
    damaged = dataclasses.replace(rutile, frac_coords=moved)
    assert moyopy_group(damaged, 1e-3) != 136
    assert encode(damaged).crystal.space_group_number != 136


def test_both_hands_of_quartz_have_one_prototype() -> None:
    one, other = (encode(bundled_crystal(f"sio2-alpha-quartz-p3-{n}21").unit_cell).crystal for n in (1, 2))
    assert one.prototype_key == other.prototype_key
    assert one.handedness == -other.handedness != 0


def test_aflow_crystals_are_what_aflow_has() -> None:
    """pymatgen's own matcher names the AFLOW prototype of crystals that come from it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymatgen reads its file with deprecated calls
        matcher = AflowPrototypeMatcher()
        for crystal_id in (
            "nacl-rock-salt",
            "zns-wurtzite",
            "catio3-orthorhombic-perovskite",
            "al2o3-corundum",
        ):
            bundled = bundled_crystal(crystal_id)
            label = bundled.source.rsplit("AFLOW ", 1)[1]
            found = matcher.get_prototypes(unit_cell_to_pymatgen(bundled.unit_cell)) or []
            assert label in [prototype["tags"]["aflow"] for prototype in found]


def test_unknown_id_is_refused() -> None:
    with pytest.raises(KeyError, match="unobtainium"):
        bundled_crystal("unobtainium")


@pytest.fixture(scope="module")
def compare_bundled() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compare_bundled", ROOT / "scripts" / "compare_bundled.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_volumes_agree_with_the_benchmark_data(shared_data: Path, compare_bundled: ModuleType) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        comparisons = compare_bundled.compare(shared_data)
    by_crystal = {c.crystal_id: [] for c in comparisons}
    for comparison in comparisons:
        by_crystal[comparison.crystal_id].append(comparison)
    compared = 0
    for crystal_id, found in by_crystal.items():
        same = [abs(c.deviation) for c in found if c.same_structure]
        compared += bool(same)
        assert min(same, default=0.0) < 0.03, (crystal_id, found)
        assert min(abs(c.deviation) for c in found) < 0.03, (crystal_id, found)
    assert compared > 60


def test_page_lists_every_crystal() -> None:
    page = (ROOT / "docs" / "bundled.md").read_text(encoding="utf-8")
    for crystal in BUNDLED:
        assert f"| {crystal.formula} | {crystal.name} | {crystal.space_group_number} |" in page
        assert crystal.source in page
