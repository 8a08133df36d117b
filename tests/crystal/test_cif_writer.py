"""The symmetrised CIF opens in pymatgen, ASE, gemmi and our reader with the right group and atoms."""

from __future__ import annotations

import io
import warnings

import gemmi
import moyopy
import numpy as np
import pytest
import spglib

from nucleate.crystal import Crystal, space_group
from nucleate.crystal.cell_checks import overlapping_pairs
from nucleate.crystal.cif import CifOrbit, crystal_to_cif, unit_cell_from_cif, write_cif
from nucleate.crystal.cif_writer import standard_symbols
from nucleate.errors import InvalidStructureError

GROUPS = (
    1,
    2,
    5,
    15,
    38,
    62,
    68,
    70,
    76,
    78,
    91,
    95,
    141,
    144,
    145,
    146,
    148,
    152,
    154,
    160,
    166,
    167,
    178,
    179,
)
GROUPS += (194, 205, 212, 213, 221, 225, 227, 228, 230)


def random_crystal(number: int) -> Crystal:
    """One orbit on every third Wyckoff position and two general ones, so that the group is exactly this one.

    Drawn anew until no two atoms are nearer than 0.6 Å: gemmi takes images nearer than 0.4 Å for one atom.
    """
    rng = np.random.default_rng(number)
    group = space_group(number)
    last = len(group.wyckoff_positions) - 1
    indices = [*range(0, last, 3), last, last]
    while True:
        free = np.array(
            [rng.random(3) * (np.arange(3) < group.wyckoff_positions[i].num_free) for i in indices]
        )
        params = 0.1 * rng.standard_normal(group.lattice_subspace.num_params)
        params[0] = np.log(20.0) / 3**0.5
        numbers = np.arange(21, 21 + len(indices))
        crystal = Crystal(number, params, np.array(indices), numbers, free)
        cell = crystal.unit_cell()
        if not len(
            overlapping_pairs(
                cell.lattice, cell.frac_coords, reciprocal=np.linalg.inv(cell.lattice), distance=0.6
            )
        ):
            return crystal


def spglib_number(lattice: np.ndarray, coords: np.ndarray, numbers: np.ndarray) -> int:
    return spglib.get_symmetry_dataset((lattice, coords, numbers), symprec=1e-4).number


@pytest.mark.parametrize("number", GROUPS)
def test_opens_everywhere_with_its_group(number: int) -> None:
    from ase.io import read
    from pymatgen.io.cif import CifParser

    crystal = random_crystal(number)
    text = crystal_to_cif(crystal)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Issues encountered while parsing CIF.*rounded to ideal values")
        structure = CifParser.from_str(text).parse_structures(primitive=False)[0]
    atoms = read(io.StringIO(text), format="cif")
    block = gemmi.cif.read_string(text).sole_block()
    small = gemmi.make_small_structure_from_block(block)
    cell = unit_cell_from_cif(text)

    counts = {int(z): int((cell.atomic_numbers == z).sum()) for z in set(cell.atomic_numbers)}
    wanted = dict(zip(crystal.atomic_numbers.tolist(), crystal.multiplicities.tolist()))
    assert counts == wanted
    assert {e.Z: int(n) for e, n in structure.composition.items()} == wanted
    assert {int(z): int((atoms.numbers == z).sum()) for z in set(atoms.numbers)} == wanted
    sites = small.get_all_unit_cell_sites()
    assert {z: sum(s.element.atomic_number == z for s in sites) for z in wanted} == wanted
    assert small.spacegroup.number == number
    assert atoms.info["spacegroup"].no == number
    assert (
        spglib_number(structure.lattice.matrix, structure.frac_coords, np.array(structure.atomic_numbers))
        == number
    )
    assert spglib_number(cell.lattice, cell.frac_coords, cell.atomic_numbers) == number
    # The digits written hold the crystal: volume to 1e-8, and every atom back within 1e-7 of the ideal place.
    assert cell.volume == pytest.approx(abs(np.linalg.det(crystal.lattice)), rel=1e-8)
    ideal = crystal.unit_cell()
    for z in wanted:
        ours, theirs = (
            cell.frac_coords[cell.atomic_numbers == z],
            ideal.frac_coords[ideal.atomic_numbers == z],
        )
        delta = ours[:, None] - theirs
        assert np.abs(delta - np.rint(delta)).max(axis=2).min(axis=1).max() < 1e-7


def test_plain_arrays_from_moyopy_give_the_same_symmetry() -> None:
    operations = moyopy.operations_from_number(227, setting=moyopy.Setting.standard())
    text = write_cif(
        (5.43, 5.43, 5.43, 90.0, 90.0, 90.0),
        [CifOrbit("Si1", 14, "a", 8, (0.125, 0.125, 0.125), oxidation_state=4.0)],
        space_group_number=227,
        rotations=np.array(operations.rotations),
        translations=np.array(operations.translations),
        block_name="diamond silicon",
        comments={"origin": "two\nlines"},
    )
    assert text.startswith("# origin: two lines\ndata_diamond_silicon\n")
    cell = unit_cell_from_cif(text)
    assert cell.num_atoms == 8
    assert (cell.site_properties["oxidation_state"] == 4).all()
    assert "'F d -3 m :2'" in text
    assert "'-F 4vw 2vw 3'" in text


def test_standard_symbols_have_moyopys_operations() -> None:
    for number in range(1, 231):
        name, hall = standard_symbols(number)
        theirs = moyopy.operations_from_number(number, setting=moyopy.Setting.standard())
        wanted = {
            (tuple(np.ravel(w)), tuple(np.rint(24 * np.array(t)).astype(int) % 24))
            for w, t in zip(theirs.rotations, theirs.translations)
        }
        for group in (gemmi.find_spacegroup_by_name(name).operations(), gemmi.symops_from_hall(hall)):
            found = {(tuple(np.ravel(op.rot) // op.DEN), tuple(np.array(op.tran) % op.DEN)) for op in group}
            assert found == wanted, number


def test_refuses_no_orbits_and_impossible_groups() -> None:
    identity = {"rotations": np.eye(3, dtype=np.int64)[None], "translations": np.zeros((1, 3))}
    with pytest.raises(InvalidStructureError, match="at least one orbit"):
        write_cif((3.0, 3.0, 3.0, 90.0, 90.0, 90.0), [], space_group_number=1, **identity)
    with pytest.raises(InvalidStructureError, match=r"outside 1\.\.230"):
        standard_symbols(231)
