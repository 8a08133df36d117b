"""A real run of GPAW in the interpreter that has it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from ase.build import bulk

from nucleate.crystal import Crystal, encode
from nucleate.crystal.convert import unit_cell_from_ase
from nucleate.errors import DFTError
from nucleate.screening.dft_gpaw import PYTHON, SETUP_FOLDERS, run_gpaw
from nucleate.screening.dft_inputs import DFTSettings
from nucleate.screening.dft_task import RunSettings


def silicon() -> Crystal:
    return encode(unit_cell_from_ase(bulk("Si", a=5.5))).crystal


def _has_gpaw() -> bool:
    if not Path(PYTHON).exists() or not any(Path(folder).is_dir() for folder in SETUP_FOLDERS):
        return False
    return (
        subprocess.run([PYTHON, "-I", "-c", "import gpaw"], capture_output=True, check=False).returncode == 0
    )


@pytest.mark.skipif(
    not _has_gpaw(), reason="GPAW is not installed for /usr/bin/python3 (Debian: gpaw, gpaw-data)"
)
def test_silicon_in_gpaw_with_its_own_interpreter(tmp_path: Path) -> None:
    settings = DFTSettings(cutoff=200.0, k_spacing=0.8, fmax=0.05)
    found = run_gpaw(silicon(), tmp_path, settings, RunSettings(tasks=("relax",), timeout=200.0))
    assert found.crystal.space_group_number == 227
    assert found.crystal.lattice[0, 0] == pytest.approx(5.43, rel=0.03)
    assert found.results[0].converged
    assert found.results[0].max_force == pytest.approx(0, abs=0.01)
    # what an earlier run left is not taken for a result
    (tmp_path / "scf.result.json").write_text("{}")
    with pytest.raises(DFTError, match="ended with code"):
        run_gpaw(
            silicon(), tmp_path, settings, RunSettings(tasks=("scf",), program="/bin/false", timeout=20.0)
        )
