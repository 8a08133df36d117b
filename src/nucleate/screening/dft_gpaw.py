"""GPAW: a script and its data, run in the interpreter that has GPAW, and results read back."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.unit_cell import UnitCell
from nucleate.errors import DFTError
from nucleate.screening import gpaw_program
from nucleate.screening.dft_inputs import (
    FUNCTIONALS,
    TASKS,
    DFTSettings,
    band_k_points,
    k_mesh,
    magnetic_moments,
)
from nucleate.screening.dft_results import DFTResult, band_gap
from nucleate.screening.dft_run import find_program, run_program, write_files
from nucleate.screening.dft_task import DFTRun, RunSettings, relaxed_crystal, require_converged

PYTHON = "/usr/bin/python3"
"""Interpreter that has GPAW, where Debian's packages put it."""

SETUP_FOLDERS = ("/usr/share/gpaw-setups",)
"""Where Debian's gpaw-data puts setups."""

DEFAULT_CUTOFF = 500.0
"""eV."""

_SCRIPT = "run.py"
_LARGEST_RESULT = 256 * 1024 * 1024


def write_inputs(crystal: Crystal, settings: DFTSettings) -> dict[str, bytes]:
    """``run.py`` and one file of data per task: ``python3 run.py relax.json relax.result.json``.

    Raises:
        DFTError: setups are missing.
    """
    check_setups(crystal, settings)
    files = {f"{task}.json": _task(crystal, settings, task) for task in TASKS}
    files[_SCRIPT] = Path(gpaw_program.__file__).read_bytes()
    return files


def _task(crystal: Crystal, settings: DFTSettings, task: str) -> bytes:
    cell = crystal.unit_cell("primitive")
    data: dict[str, Any] = {
        "name": task,
        "setups": [str(folder.resolve()) for folder in _setup_folders(settings)],
        "cell": {
            "lattice": cell.lattice.tolist(),
            "frac_coords": cell.frac_coords.tolist(),
            "atomic_numbers": cell.atomic_numbers.tolist(),
            "magnetic_moments": magnetic_moments(crystal, settings),
        },
        "functional": FUNCTIONALS[settings.functional]["gpaw"],
        "cutoff": settings.cutoff or DEFAULT_CUTOFF,
        "k_mesh": list(k_mesh(cell.lattice, settings.k_spacing)),
        "smearing": settings.smearing,
        "fmax": settings.fmax,
        "steps": settings.steps,
    }
    if task == "bands":
        # as many levels as GPAW's SCF has room for: half again of the atoms' valence, which the script knows
        points, path = band_k_points(crystal, settings)
        data |= {"band_k_points": points.tolist(), "band_path": path, "bands": "150%"}
    return (json.dumps(data, indent=1, sort_keys=True) + "\n").encode()


def _setup_folders(settings: DFTSettings) -> list[Path]:
    named = settings.gpaw_setups or os.environ.get("GPAW_SETUP_PATH", "")
    return [Path(name) for name in named.split(os.pathsep) if name] or [Path(f) for f in SETUP_FOLDERS]


def check_setups(crystal: Crystal, settings: DFTSettings) -> None:
    """Nothing, if each element has a setup of the functional in the folder given or where GPAW looks.

    Raises:
        DFTError: elements have none; the message names all of them.
    """
    functional = FUNCTIONALS[settings.functional]["gpaw"]
    folders = _setup_folders(settings)
    symbols = sorted(set(crystal.to_atoms("primitive").get_chemical_symbols()))
    missing = [
        symbol
        for symbol in symbols
        if not any(
            (folder / f"{symbol}.{functional}{end}").is_file() for folder in folders for end in (".gz", "")
        )
    ]
    if missing:
        raise DFTError(
            f"no {functional} setups of GPAW for {', '.join(missing)} in {', '.join(map(str, folders))}: install "
            "Debian's gpaw-data, or name their folder (dft.gpaw_setups)"
        )


def run_gpaw(crystal: Crystal, folder: Path, settings: DFTSettings, run: RunSettings | None = None) -> DFTRun:
    """Results of GPAW for a crystal; SCF and bands are those of the relaxed crystal where it was relaxed.

    Each task is one run of the script ``run.py`` by the interpreter ``run.program`` (``PYTHON``), isolated from
    the user's own packages (``-I``); data go in and come back as JSON.

    Args:
        crystal: the crystal.
        folder: made if it is not there.
        settings: numbers.
        run: tasks, interpreter and time limit.

    Raises:
        DFTError: something is missing, failed, did not converge or took too long.
    """
    run = run or RunSettings()
    write_files(folder, write_inputs(crystal, settings))
    interpreter = find_program(run.program or PYTHON)
    results: list[DFTResult] = []
    for task in run.tasks:
        output = folder / f"{task}.result.json"
        output.unlink(missing_ok=True)
        write_files(folder, {f"{task}.json": _task(crystal, settings, task)})
        run_program(
            [interpreter, "-I", _SCRIPT, f"{task}.json", output.name],
            folder,
            output=f"{task}.out",
            timeout=run.timeout,
            threads=run.threads,
        )
        results.append(require_converged(_read(output, crystal, task), folder))
        if task == "relax":
            crystal = relaxed_crystal(results[-1].cell, crystal)
    return DFTRun(crystal, tuple(results))


def _read(path: Path, crystal: Crystal, task: str) -> DFTResult:
    try:
        if path.stat().st_size > _LARGEST_RESULT:
            raise DFTError(f"{path} has {path.stat().st_size:,} bytes, more than GPAW's script writes")
        found = json.loads(path.read_text())
        levels = np.array(found["levels"], dtype=np.float64)
        cell = UnitCell(
            np.array(found["lattice"], dtype=np.float64),
            np.array(found["frac_coords"], dtype=np.float64),
            crystal.unit_cell("primitive").atomic_numbers,
        )
        return DFTResult(
            "gpaw",
            task,
            bool(found["converged"]),
            float(found["energy"]),
            cell,
            np.array(found["forces"], dtype=np.float64),
            np.array(found["stress"], dtype=np.float64),
            band_gap(levels, float(found["electrons"]), 3 - int(found["spins"])),
            float(found["fermi_energy"]),
            levels,
            np.array(found["k_points"], dtype=np.float64),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DFTError(
            f"the results of GPAW in {path} cannot be read ({type(error).__name__}: {error})"
        ) from error
