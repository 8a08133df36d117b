"""POSCAR text against pymatgen's and ASE's readers, every dialect, and damage with its line number."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleate.crystal.poscar import unit_cell_from_poscar, write_poscar
from nucleate.crystal.unit_cell import UnitCell
from nucleate.errors import InvalidStructureError, NucleateError, ParseError, StructureTooLargeError

PLAIN = """TiO2
1.0
4.6 0.0 0.0
0.1 4.6 0.0
0.0 0.2 2.96
Ti_pv O/0f2a
2 4
Direct
0.0 0.0 0.0
0.5 0.5 0.5
0.305 0.305 0.0
0.695 0.695 0.0
0.195 0.805 0.5
0.805 0.195 0.5
"""
VARIANTS = {
    "plain": PLAIN,
    "scaled": PLAIN.replace("1.0\n", "1.05d0\n", 1),
    "volume": PLAIN.replace("1.0\n", "-70.0\n", 1),
    "three factors": PLAIN.replace("1.0\n", "1.0 1.1 1.2\n", 1),
    "cartesian": PLAIN.replace("1.0\n", "1.1\n", 1).replace("Direct", "Kartesian"),
    "windows": PLAIN.replace("\n", "\r\n"),
    "velocities": PLAIN + "\n" + "0.0 0.0 0.1\n" * 6,
}


@pytest.mark.parametrize("name", VARIANTS)
def test_agrees_with_ase_and_pymatgen(name: str) -> None:
    from ase.io import read
    from pymatgen.io.vasp import Poscar

    text = VARIANTS[name]
    cell = unit_cell_from_poscar(text)
    readable = text.replace("\r\n", "\n").replace("d0", "").replace("_pv", "").replace("/0f2a", "")
    atoms = read(io.StringIO(readable), format="vasp")
    assert np.allclose(cell.lattice, atoms.cell, atol=1e-9)
    assert np.allclose(cell.cart_coords, atoms.positions, atol=1e-9)
    assert (cell.atomic_numbers == atoms.numbers).all()
    if name not in ("three factors", "velocities"):  # pymatgen reads one factor only
        theirs = Poscar.from_str(readable).structure
        assert np.allclose(cell.lattice, theirs.lattice.matrix, atol=1e-9)
        assert np.allclose(cell.frac_coords, theirs.frac_coords, atol=1e-9)


def test_selective_dynamics_and_deuterium_there_and_back(rng: np.random.Generator) -> None:
    cell = UnitCell(
        np.eye(3) * 5 + 0.3 * rng.random((3, 3)),
        rng.random((4, 3)) * 3 - 1,
        np.array([1, 26, 26, 1]),
        {"mass_number": np.array([2, 0, 0, 0]), "selective_dynamics": rng.random((4, 3)) < 0.5},
    )
    text = write_poscar(cell, comment="two\nlines")
    assert text.splitlines()[0] == "two lines"
    assert text.splitlines()[5:8] == ["D Fe H", "1 2 1", "Selective dynamics"]
    back = unit_cell_from_poscar(text)
    assert np.allclose(back.lattice, cell.lattice, atol=1e-14)
    assert np.allclose(back.frac_coords, cell.frac_coords, atol=1e-15)
    assert (back.atomic_numbers == cell.atomic_numbers).all()
    assert back.site_properties["mass_number"].tolist() == [2, 0, 0, 0]
    assert (back.site_properties["selective_dynamics"] == cell.site_properties["selective_dynamics"]).all()


@pytest.mark.parametrize(
    ("old", "new", "error", "reason"),
    [
        ("Ti_pv O/0f2a\n", "", ParseError, "line 6: atom counts where element symbols"),
        ("Ti_pv", "X", InvalidStructureError, "line 6: 'X' is a dummy species"),
        ("O/0f2a", "H.5", InvalidStructureError, "line 6: 'H.5' is not an element"),
        ("2 4", "2", ParseError, "line 7: 2 element symbols"),
        ("2 4", "2 0", ParseError, "line 7"),
        ("2 4", "2 four", ParseError, "line 7: expected atom counts"),
        ("2 4", "2 5", ParseError, "ends after line|line 15"),
        ("2 4", "2 99999999", StructureTooLargeError, "100000001 atoms, the limit is 1000"),
        ("Direct", "0.1 0.2 0.3", ParseError, "line 8: expected Direct or Cartesian"),
        ("Direct", "Selective\nDirect", ParseError, "line 10: selective dynamics needs three T or F"),
        ("0.305 0.305 0.0", "0.305 nan 0.0", ParseError, "line 11: expected coordinates of atom 3 of 6"),
        ("0.305 0.305 0.0", "0.305 0.305", ParseError, "line 11"),
        ("0.305 0.305 0.0", "0.5 0.5 0.5", InvalidStructureError, r"Ti \(site 2\) and O \(site 3\)"),
        ("0.1 4.6 0.0", "0.1 4.6", ParseError, "line 4: expected a lattice vector"),
        ("0.1 4.6 0.0", "9.2 0.0 0.0", InvalidStructureError, "without volume"),
        ("\n1.0\n", "\n0.0\n", ParseError, "line 2"),
        ("\n1.0\n", "\n1.0 2.0\n", ParseError, "line 2"),
        ("\n1.0\n", "\n1.0 1.0 -2.0\n", ParseError, "line 2"),
    ],
)
def test_refuses_with_the_line(old: str, new: str, error: type[Exception], reason: str) -> None:
    assert old in PLAIN
    with pytest.raises(error, match=reason):
        unit_cell_from_poscar(PLAIN.replace(old, new, 1))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_text_is_read_or_refused(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(sorted(VARIANTS.values())))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        insert = data.draw(
            st.one_of(st.text(max_size=3), st.sampled_from(["1e999", "-", "1e308", "\n", "0"]))
        )
        text = text[:at] + insert + text[at + data.draw(st.integers(0, 8)) :]
    try:
        cell = unit_cell_from_poscar(text)
    except NucleateError:
        return
    assert np.isfinite(cell.cart_coords).all()


@given(st.integers(0, len(PLAIN)))
def test_any_truncation_that_loses_an_atom_is_refused(cut: int) -> None:
    text = PLAIN[:cut]
    if len(re.findall(r"\n", text)) < 13:
        with pytest.raises(NucleateError):
            unit_cell_from_poscar(text)
