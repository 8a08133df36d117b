"""Small sets of real crystals, with one that is unreadable and one that is refused."""

from __future__ import annotations

from pathlib import Path

import nearest_family
import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from fourteen_atoms import cell_of, real_atoms

from nucleate.crystal import UnitCell
from nucleate.data import Store, build_store
from nucleate.evaluation.candidate import Candidate, make_candidate
from nucleate.evaluation.family import FAMILIES


@pytest.fixture(scope="session")
def candidates() -> list[Candidate]:
    """Fourteen real crystals, then one whose atoms coincide and one that could not be read."""
    made = [
        make_candidate(
            i,
            cell_of(atoms),
            id=f"c{i}",
            file=f"c{i}.cif",
            given={"space_group_asked": 225, "energy": 0.5 * i},
        )
        for i, atoms in enumerate(real_atoms())
    ]
    clash = UnitCell(4.0 * np.eye(3), np.zeros((2, 3)), np.array([11, 17]))
    made.append(make_candidate(len(made), clash, id="clash", file="clash.cif"))
    made.append(Candidate(len(made), "broken", "broken.cif", None, None, "The file is empty."))
    return made


@pytest.fixture(scope="session")
def crystal_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the fourteen crystals as CIF files, a broken one and one whose atoms coincide."""
    folder = tmp_path_factory.mktemp("cifs")
    for i, atoms in enumerate(real_atoms()):
        write(folder / f"c{i:02d}.cif", atoms)
    (folder / "x-broken.cif").write_text("data_broken\nloop_\n_atom_site_label\n")
    write(
        folder / "y-clash.vasp",
        Atoms("NaCl", cell=4 * np.eye(3), scaled_positions=np.zeros((2, 3)), pbc=True),
    )
    return folder


@pytest.fixture(scope="session")
def reference_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store of 40 strained copies of the fourteen crystals, split at random."""
    folder = tmp_path_factory.mktemp("reference")
    rng = np.random.default_rng(1)
    (folder / "cifs").mkdir()
    for i in range(40):
        atoms = real_atoms()[i % 14]
        atoms.set_cell(atoms.cell * rng.uniform(0.97, 1.03), scale_atoms=True)
        write(folder / "cifs" / f"r{i:02d}.cif", atoms)
    build_store(folder / "cifs", folder / "store", fractions=(0.7, 0.1, 0.2))
    return Store.open(folder / "store")


@pytest.fixture
def nearest_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The family of ``nearest_family`` is known; sizes of the chunks that are computed are in the list."""
    monkeypatch.setitem(FAMILIES, "nearest", "nearest_family")
    nearest_family.CALLS.clear()
    nearest_family.FAIL_AT.clear()
    return nearest_family.CALLS
