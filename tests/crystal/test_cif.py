"""CIF text as unit cells, against pymatgen, ASE and gemmi: real files and one tricky file per feature."""

from __future__ import annotations

import io
import re
import time
import warnings

import gemmi
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleate.crystal.cif import cif_blocks, unit_cell_from_cif
from nucleate.crystal.cif_writer import standard_symbols
from nucleate.errors import (
    DisorderedStructureError,
    InvalidStructureError,
    NucleateError,
    ParseError,
    StructureTooLargeError,
)

HEXAGONAL = (4.0, 4.0, 6.0, 90, 90, 120)
CUBIC = (5.0, 5.0, 5.0, 90, 90, 90)
MINUS_3 = ("x,y,z", "-y,x-y,z", "-x+y,-x,z", "-x,-y,-z", "y,-x+y,-z", "x-y,x,-z")


def cif(
    sites: str,
    *,
    cell=CUBIC,
    operations=("x,y,z",),
    items="label type_symbol fract_x fract_y fract_z",
    extra="",
):
    """A CIF block of these rows."""
    names = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
    lines = ["data_test"] + [f"_cell_{name} {value}" for name, value in zip(names, cell)]
    if operations:
        lines += ["loop_", "_symmetry_equiv_pos_as_xyz"] + [f"'{operation}'" for operation in operations]
    lines += [extra, "loop_"] + [f"_atom_site_{item}" for item in items.split()] + [sites.strip(), ""]
    return "\n".join(lines)


def triplets(symbol: str) -> tuple[str, ...]:
    return tuple(op.triplet() for op in gemmi.find_spacegroup_by_name(symbol).operations())


def pymatgen_structure(text: str):
    from pymatgen.io.cif import CifParser

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return CifParser.from_str(text).parse_structures(primitive=False)[0]


# ---- real files ------------------------------------------------------------


def test_two_hundred_real_files_agree_with_pymatgen_and_ase(shared_data) -> None:
    import pyarrow.parquet as pq
    from ase.io import read

    texts = pq.read_table(shared_data / "mp_20.parquet", columns=["cif"])["cif"].to_pylist()[::86]
    assert len(texts) >= 200
    for text in texts:
        cell = unit_cell_from_cif(text)
        theirs, atoms = pymatgen_structure(text), read(io.StringIO(text), format="cif")
        assert np.allclose(cell.lattice, theirs.lattice.matrix, atol=1e-9)
        assert len(theirs) == len(atoms) == cell.num_atoms
        assert (atoms.numbers == cell.atomic_numbers).all()
        delta = atoms.get_scaled_positions() - cell.frac_coords
        assert np.abs(delta - np.rint(delta)).max() < 1e-9


def test_symmetrised_real_files_agree_with_the_same_files_in_p1(shared_data) -> None:
    import pyarrow.parquet as pq
    from pymatgen.core import Structure
    from pymatgen.io.cif import CifWriter

    texts = pq.read_table(shared_data / "mp_20.parquet", columns=["cif"])["cif"].to_pylist()[::1700]
    for text in texts:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            structure = Structure.from_str(text, fmt="cif")
            symmetrised = str(CifWriter(structure, symprec=0.01))
        theirs, cell = pymatgen_structure(symmetrised), unit_cell_from_cif(symmetrised)
        assert cell.num_atoms == len(theirs)
        ours = Structure(cell.lattice, cell.atomic_numbers, cell.frac_coords)
        for site in ours:
            near = theirs.get_sites_in_sphere(site.coords, 0.01)
            assert [found.specie.Z for found in near] == [site.specie.Z]


# ---- symmetry ------------------------------------------------------------


@pytest.mark.parametrize("digits", [2, 3, 4, 6])
def test_rounded_thirds_are_one_atom(digits: int) -> None:
    third, two_thirds = f"{1 / 3:.{digits}f}", f"{2 / 3:.{digits}f}"
    text = cif(f"Ga1 Ga {third} {two_thirds} 0.1234", cell=(20.0, 20.0, 6.0, 90, 90, 120), operations=MINUS_3)
    cell = unit_cell_from_cif(text)
    assert cell.num_atoms == 2
    expected = [[1 / 3, 2 / 3, 0.1234], [2 / 3, 1 / 3, 0.8766]]
    assert np.allclose(np.sort(cell.frac_coords, axis=0), np.sort(expected, axis=0), atol=1e-12)


def test_cut_and_padded_thirds_are_one_atom() -> None:
    for x, y in (
        ("0.333", "0.666"),
        ("0.33300", "0.66700"),
        ("0.33333", "0.66666"),
        ("-0.3333(2)", "3.333E-1"),
    ):
        cell = unit_cell_from_cif(cif(f"Ga1 Ga {x} {y} 0", cell=HEXAGONAL, operations=MINUS_3[:3]))
        assert cell.num_atoms == 1


def test_negative_control_an_atom_near_a_mirror_in_all_its_digits_stays_two() -> None:
    mirror = ("x,y,z", "-x,y,z")
    assert unit_cell_from_cif(cif("H1 H 0.012345678 0 0", operations=mirror)).num_atoms == 2
    assert unit_cell_from_cif(cif("H1 H 0.01 0 0", operations=mirror)).num_atoms == 1
    assert unit_cell_from_cif(cif("H1 H 0.0005 0 0", operations=mirror)).num_atoms == 1


@pytest.mark.parametrize(
    ("extra", "cell", "count"),
    [
        ("_symmetry_space_group_name_H-M 'F m -3 m'", CUBIC, 4),
        ("_space_group_name_H-M_alt 'Fm-3m'", CUBIC, 4),
        ("_symmetry_space_group_name_H-M 'F d -3 m :2'", CUBIC, 16),
        ("_symmetry_space_group_name_H-M 'F d -3 m Z'", CUBIC, 16),
        ("_symmetry_space_group_name_H-M 'F d -3 m S'", CUBIC, 8),
        ("_symmetry_space_group_name_H-M 'F d -3 m'\n_space_group_IT_coordinate_system_code 2", CUBIC, 16),
        ("_space_group_name_Hall '-F 4vw 2vw 3'", CUBIC, 16),
        ("_symmetry_Int_Tables_number 225", CUBIC, 4),
        ("_symmetry_space_group_name_H-M 'R -3 m'", HEXAGONAL, 3),
        ("_symmetry_space_group_name_H-M 'R -3 m'", (4.0, 4.0, 4.0, 70, 70, 70), 1),
        ("_symmetry_space_group_name_H-M 'R -3 m :R'", (4.0, 4.0, 4.0, 70, 70, 70), 1),
        ("_symmetry_space_group_name_H-M 'R -3 m H'", HEXAGONAL, 3),
        ("_symmetry_space_group_name_H-M 'P 1 21/n 1'", (4.0, 5.0, 6.0, 90, 99, 90), 2),
        ("_symmetry_space_group_name_H-M 'P2(1)/c'", (4.0, 5.0, 6.0, 90, 99, 90), 2),
        ("_space_group.name_H-M_alt 'P 1 1 21/b'", (4.0, 5.0, 6.0, 90, 90, 99), 2),
    ],
)
def test_symmetry_from_symbols(extra: str, cell: tuple[float, ...], count: int) -> None:
    read = unit_cell_from_cif(cif("Si1 Si 0 0 0", cell=cell, operations=(), extra=extra))
    assert read.num_atoms == count


def test_operations_win_over_symbols() -> None:
    extra = "_symmetry_space_group_name_H-M 'F m -3 m'\n_symmetry_Int_Tables_number 225"
    assert unit_cell_from_cif(cif("Si1 Si 0 0 0", extra=extra)).num_atoms == 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"operations": ()}, "gives no symmetry"),
        ({"operations": (), "extra": "_symmetry_space_group_name_H-M 'F d -3 m'"}, "two origin choices"),
        ({"operations": (), "extra": "_symmetry_space_group_name_H-M 'Q 7'"}, "is unknown"),
        ({"operations": (), "extra": "_symmetry_Int_Tables_number 231"}, r"not one of 1\.\.230"),
        (
            {"operations": (), "extra": "_space_group_name_H-M_alt 'P n m a'\n_space_group_IT_number 225"},
            "is space group 62, but the number given is 225",
        ),
        (
            {"operations": (), "extra": "_space_group_name_Hall 'garbage'"},
            "Hall symbol 'garbage' does not parse",
        ),
        ({"operations": ("x,y,z", "-x,y,zz")}, "'-x,y,zz'"),
        ({"operations": ("x,y,z", "-y,x-y,z")}, "not a group"),
        ({"extra": "_cell_modulation_dimension 1"}, "modulated"),
        ({"extra": "loop_\n_cell_wave_vector_seq_id\n_cell_wave_vector_x\n1 0.3"}, "modulated"),
    ],
)
def test_symmetry_that_cannot_be_read_is_refused(options: dict, reason: str) -> None:
    with pytest.raises(ParseError, match=reason):
        unit_cell_from_cif(cif("Si1 Si 0 0 0", **options))


def test_cell_that_contradicts_its_operations_is_refused() -> None:
    with pytest.raises(InvalidStructureError, match="contradict each other"):
        unit_cell_from_cif(cif("Si1 Si 0.1 0.2 0.3", operations=MINUS_3))


@pytest.mark.parametrize("number", [5, 15, 70, 146, 148, 166, 167, 194, 205, 227, 230])
def test_expansion_agrees_with_gemmi(number: int) -> None:
    name, _ = standard_symbols(number)
    group = gemmi.find_spacegroup_by_name(name)
    system = group.crystal_system_str()
    cell = {"monoclinic": (6.0, 7.0, 8.0, 90, 97, 90), "orthorhombic": (6.0, 7.0, 8.0, 90, 90, 90)}.get(
        system, (9.0, 9.0, 9.0, 90, 90, 90) if system == "cubic" else (7.0, 7.0, 11.0, 90, 90, 120)
    )
    text = cif("Si1 Si 0.41234 0.11711 0.06355\nO1 O 0 0 0", cell=cell, operations=triplets(name))
    ours = unit_cell_from_cif(text)
    theirs = gemmi.make_small_structure_from_block(gemmi.cif.read_string(text)[0]).get_all_unit_cell_sites()
    assert ours.num_atoms == len(theirs)
    coords = np.array([site.fract.tolist() for site in theirs])
    delta = ours.frac_coords[:, None] - coords
    assert np.abs(delta - np.rint(delta)).max(axis=2).min(axis=1).max() < 1e-9


# ---- sites ------------------------------------------------------------


def test_numbers_with_uncertainties_and_quotes() -> None:
    text = cif("Na1 Na 0.1234(5) '.25' -1.5e-1", cell=("5.000(2)", "5.0", "5", "90.0(1)", 90, 90))
    cell = unit_cell_from_cif(text)
    assert np.allclose(cell.frac_coords, [[0.1234, 0.25, -0.15]])
    assert cell.lattice[2, 2] == 5.0


def test_oxidation_states_isotopes_and_labels() -> None:
    extra = "loop_\n_atom_type_symbol\n_atom_type_oxidation_number\nFe3+ 2.5\nO2- -2"
    text = cif("Fe1 Fe3+ 0 0 0\nO1 O2- .5 .5 .5\nD1 D .5 0 0\nC1 13C 0 .5 0\nW Na .2 .2 .2", extra=extra)
    cell = unit_cell_from_cif(text)
    assert cell.atomic_numbers.tolist() == [26, 8, 1, 6, 11]
    states = cell.site_properties["oxidation_state"]
    assert states[:2].tolist() == [2.5, -2.0]
    assert np.isnan(states[2:]).all()
    assert cell.site_properties["mass_number"].tolist() == [0, 0, 2, 13, 0]
    assert cell.site_properties["label"].tolist() == ["Fe1", "O1", "D1", "C1", "W"]


def test_elements_from_labels_alone_and_ddlm_tags() -> None:
    labels_only = cif("FE1A 0 0 0\nCl2 .5 .5 .5", items="label fract_x fract_y fract_z")
    assert unit_cell_from_cif(labels_only).atomic_numbers.tolist() == [26, 17]
    dotted = re.sub(r"_(cell|atom_site)_", r"_\1.", cif("Na1 Na 0 0 0")).replace(
        "_symmetry_equiv_pos_as_xyz", "_space_group_symop.operation_xyz"
    )
    assert unit_cell_from_cif(dotted).num_atoms == 1
    pairs = (
        cif("").partition("loop_\n_atom_site")[0].replace("loop_\n_symm", "_symm").replace("_xyz\n", "_xyz ")
    )
    pairs += "_atom_site_label Na1\n_atom_site_fract_x 0.1\n_atom_site_fract_y 0.2\n_atom_site_fract_z 0.3\n"
    assert unit_cell_from_cif(pairs).frac_coords.tolist() == [[0.1, 0.2, 0.3]]


OCCUPIED = "label type_symbol fract_x fract_y fract_z occupancy"
GROUPED = "label type_symbol fract_x fract_y fract_z disorder_group"


@pytest.mark.parametrize(
    ("rows", "items", "listed"),
    [
        (
            "Fe1 Fe 0 0 0 0.5\nNi1 Ni 0 0 0 0.5",
            OCCUPIED,
            r"Fe1 \(Fe, occupancy 0.5\), Ni1 \(Ni, occupancy 0.5\)",
        ),
        ("Fe1 Fe 0 0 0 1\nO1 O .5 0 0 0.98(1)", OCCUPIED, r"O1 \(O, occupancy 0.98\)"),
        ("Fe1 Fe 0 0 0 0", OCCUPIED, "Fe1"),
        ("Nb,Zr '0.8Nb + 0.2Zr' 0 0 0 1", OCCUPIED, "several species"),
        ("O1 O 0 0 0 1\nO2 O .3 0 0 2", GROUPED, r"O1 \(group 1\), O2 \(group 2\)"),
        ("O1 O 0 0 0 -1", GROUPED, r"O1 \(group -1\)"),
    ],
)
def test_disorder_is_refused_with_the_sites(rows: str, items: str, listed: str) -> None:
    with pytest.raises(DisorderedStructureError, match=listed):
        unit_cell_from_cif(cif(rows, items=items))


def test_full_or_unknown_occupancy_is_order() -> None:
    rows = "A1 Fe 0 0 0 1.000(3)\nA2 Fe .5 0 0 ?\nA3 Fe 0 .5 0 .\nA4 Fe 0 0 .5 0.9995"
    assert unit_cell_from_cif(cif(rows, items=OCCUPIED)).num_atoms == 4
    assert unit_cell_from_cif(cif("A1 Fe 0 0 0 .\nA2 O .5 0 0 1", items=GROUPED)).num_atoms == 2


HYDROGENS = "label type_symbol fract_x fract_y fract_z attached_hydrogens"
FLAGGED = "label type_symbol fract_x fract_y fract_z calc_flag"
INVERSION = ("x,y,z", "-x,-y,-z")


@pytest.mark.parametrize(
    ("rows", "options", "error", "reason"),
    [
        ("X1 X 0 0 0", {}, InvalidStructureError, "dummy species"),
        ("Va1 Va 0 0 0", {}, InvalidStructureError, "dummy species"),
        ("Q1 Zz 0 0 0", {}, InvalidStructureError, "'Zz' is not an element"),
        ("T1 0 0 0", {"items": "label fract_x fract_y fract_z"}, InvalidStructureError, "element symbol"),
        ("Na1 Na ? 0 0", {}, ParseError, "no coordinates"),
        ("Na1 Na nan 0 0", {}, ParseError, "not a number"),
        ("Na1 Na 1e999 0 0", {}, ParseError, "not a number"),
        ("Na1 Na 1e9 0 0", {}, InvalidStructureError, "fractional coordinates"),
        ("Na1 Na 0 0 0\nNa2 Na 1 0 0.0001", {}, InvalidStructureError, "Na1 and Na2"),
        ("Na1 Na .1 0 0\nNa2 Na -.1 0 0", {"operations": INVERSION}, InvalidStructureError, "Na1 and Na2"),
        ("Na1 Na 0 0 0", {"cell": (5.0, 5.0, 0.0, 90, 90, 90)}, InvalidStructureError, "must be positive"),
        ("Na1 Na 0 0 0", {"cell": (5.0, 5.0, 5.0, 90, 90, 180)}, InvalidStructureError, "between 0 and 180"),
        ("Na1 Na 0 0 0", {"cell": (5.0, 5.0, 5.0, 30, 30, 90)}, InvalidStructureError, "close no cell"),
        ("Na1 Na 0 0 0", {"cell": (5.0, 5.0, "?", 90, 90, 90)}, ParseError, "_cell_length_c"),
        ("Na1 Na 0 0 0", {"cell": (1e30, 5.0, 5.0, 90, 90, 90)}, InvalidStructureError, "longer than"),
        ("Na1 Na 0 0", {"items": "label type_symbol fract_x fract_y"}, ParseError, "fract_z"),
        ("0 0 0", {"items": "fract_x fract_y fract_z"}, ParseError, "names no elements"),
        ("O1 O 1 2 3", {"items": "label type_symbol Cartn_x Cartn_y Cartn_z"}, ParseError, "Cartesian"),
        ("O1 O 0 0 0 1", {"items": HYDROGENS}, InvalidStructureError, "not placed"),
        ("O1 O 0 0 0 dum", {"items": FLAGGED}, InvalidStructureError, "dummy"),
    ],
)
def test_what_is_no_crystal_is_refused(rows: str, options: dict, error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=reason):
        unit_cell_from_cif(cif(rows, **options))


def test_too_many_atoms_are_refused_before_they_are_expanded() -> None:
    rows = "\n".join(f"Na{i} Na {i / 1e5:.5f} 0 0" for i in range(100_000))
    started = time.perf_counter()
    with pytest.raises(StructureTooLargeError, match="100000 atoms or more, the limit is 1000"):
        unit_cell_from_cif(cif(rows))
    assert time.perf_counter() - started < 20  # a hang, not a speed
    general = cif("Na1 Na .1123 .2234 .3456", operations=triplets("F m -3 m"))
    assert unit_cell_from_cif(general, max_atoms=192).num_atoms == 192
    with pytest.raises(StructureTooLargeError):
        unit_cell_from_cif(general, max_atoms=191)


# ---- blocks and magnetic files ------------------------------------------------------------


def test_blocks() -> None:
    text = (
        "data_global\n_journal_name_full 'x'\n"
        + cif("Na1 Na 0 0 0")
        + cif("X1 X 0 0 0").replace("test", "second")
    )
    assert unit_cell_from_cif(text).num_atoms == 1
    blocks = cif_blocks(text, name="file.cif")
    assert [(block.name, block.has_atoms) for block in blocks] == [
        ("global", False),
        ("test", True),
        ("second", True),
    ]
    with pytest.raises(InvalidStructureError, match=r"file\.cif, data block 'second': site X1"):
        blocks[2].unit_cell()
    with pytest.raises(ParseError, match="no atom sites"):
        unit_cell_from_cif("data_a\n_cell_length_a 3\n")
    for broken in (
        "",
        "no cif\n",
        "data_a\nloop_\n_a\n_b\n1 2 3\n",
        "data_a\n_a 1\n_a 2\n",
        "data_a\n_a 'x\n",
    ):
        with pytest.raises(ParseError):
            unit_cell_from_cif(broken)


MAGNETIC = """data_mn
_cell_length_a 4
_cell_length_b 4
_cell_length_c 6
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
loop_
_space_group_symop_magn_operation.id
_space_group_symop_magn_operation.xyz
1 x,y,z,+1
2 -x,-y,z,+1
loop_
_space_group_symop_magn_centering.id
_space_group_symop_magn_centering.xyz
1 x,y,z,+1
2 x+1/2,y+1/2,z+1/2,-1
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Mn1 Mn 0 0 0
O1 O 0.2 0.3 0.1
loop_
_atom_site_moment.label
_atom_site_moment.crystalaxis_x
_atom_site_moment.crystalaxis_y
_atom_site_moment.crystalaxis_z
Mn1 {moment}
"""


def test_magnetic_moments_agree_with_pymatgen() -> None:
    text = MAGNETIC.format(moment="0 0 3.5(1)")
    cell = unit_cell_from_cif(text)
    moments = cell.site_properties["magnetic_moment"]
    assert cell.num_atoms == 6
    assert moments[cell.atomic_numbers == 25].tolist() == [[0, 0, 3.5], [0, 0, -3.5]]
    assert not moments[cell.atomic_numbers == 8].any()
    for site in pymatgen_structure(text):
        delta = cell.frac_coords - site.frac_coords
        ours = moments[np.abs(delta - np.rint(delta)).max(axis=1) < 1e-6]
        assert np.allclose(ours, [site.properties["magmom"].global_moment])


def test_moments_of_a_hexagonal_cell_turn_with_their_sites() -> None:
    operations = ("x,y,z,+1", "-y,x-y,z,+1", "-x+y,-x,z,+1")
    text = cif("Mn1 Mn 0.3 0 0", cell=(6.0, 6.0, 5.0, 90, 90, 120), operations=()).replace(
        "loop_\n_atom",
        "loop_\n_space_group_symop_magn_operation.xyz\n" + "\n".join(operations) + "\nloop_\n_atom",
        1,
    )
    text += (
        "loop_\n_atom_site_moment_label\n_atom_site_moment_crystalaxis_x\n_atom_site_moment_crystalaxis_y\n"
    )
    text += "_atom_site_moment_crystalaxis_z\nMn1 2 0 1\n"
    cell = unit_cell_from_cif(text)
    moments = cell.site_properties["magnetic_moment"]
    along = cell.frac_coords - np.rint(
        cell.frac_coords
    )  # every moment has its in-plane part along its own site
    in_plane = along @ cell.lattice
    assert np.allclose(np.linalg.norm(moments, axis=1), 5**0.5)
    assert np.allclose(moments[:, 2], 1)
    assert np.allclose(moments[:, :2], 2 * in_plane[:, :2] / np.linalg.norm(in_plane, axis=1)[:, None])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (MAGNETIC.format(moment="1 0 0"), "breaks the magnetic symmetry"),
        (MAGNETIC.format(moment="0 0 1").replace("Mn1 0", "Mn9 0"), "no site label"),
        (MAGNETIC.format(moment="0 0 1").replace("crystalaxis", "spherical"), "crystalaxis"),
        (MAGNETIC.format(moment="0 0 1").replace("-x,-y,z,+1", "-x,-y,z"), "no time reversal"),
        (
            cif("Mn1 Mn 0 0 0", operations=(), extra="_space_group_magn.number_BNS 1.1"),
            "names a magnetic group",
        ),
    ],
)
def test_magnetic_files_that_contradict_themselves_are_refused(text: str, reason: str) -> None:
    with pytest.raises(NucleateError, match=reason):
        unit_cell_from_cif(text)


# ---- damage ------------------------------------------------------------

SEEDS = (
    cif("Ga1 Ga 0.3333 0.6667 0\nN1 N 0.3333 0.6667 0.377", cell=HEXAGONAL, operations=MINUS_3[:3]),
    cif("Fe1 Fe3+ 0 0 0 1\nO1 O2- 0.5 0.5 0.5 1", items=OCCUPIED, operations=triplets("F m -3 m")),
    MAGNETIC.format(moment="0 0 3.5(1)"),
)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    text = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(text) - 1, 0)))
        kind = draw(st.sampled_from(["cut", "byte", "number", "line"]))
        if kind == "cut":
            text = text[: at + 1]
        elif kind == "byte":
            text = text[:at] + draw(st.characters()) + text[at + 1 :]
        elif kind == "number":
            wrong = draw(
                st.sampled_from(
                    ["nan", "inf", "1e308", "-1", "0", "?", ".", "99999999", "1e-30", "''", "0.5"]
                )
            )
            numbers = list(re.finditer(r"-?\d+\.?\d*", text))
            if numbers:
                hit = draw(st.sampled_from(numbers))
                text = text[: hit.start()] + wrong + text[hit.end() :]
        else:
            lines = text.split("\n")
            del lines[draw(st.integers(0, len(lines) - 1))]
            text = "\n".join(lines)
    return text


def test_a_moment_too_large_for_arithmetic_is_refused_by_name() -> None:
    """Its square overflowed."""
    with pytest.raises(InvalidStructureError, match=r"site Mn1: its magnetic moment \[1e\+308, 0.0, 3.5\]"):
        unit_cell_from_cif(MAGNETIC.format(moment="1e308 0 3.5(1)"))


@settings(max_examples=300, deadline=None)
@given(damaged())
def test_damaged_text_is_read_or_refused_with_a_reason(text: str) -> None:
    reason = None
    try:
        cell = unit_cell_from_cif(text)
    except NucleateError as error:
        reason = str(error)
    if reason is not None:
        assert reason
        return
    assert np.isfinite(cell.frac_coords).all()
    assert cell.volume > 0


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=300))
def test_any_text_is_refused_with_a_reason(text: str) -> None:
    with pytest.raises(NucleateError):
        unit_cell_from_cif(text)
