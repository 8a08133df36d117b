"""Runs of Quantum ESPRESSO: relaxation, SCF and bands of a crystal, each read back."""

from __future__ import annotations

import shutil
from pathlib import Path

from nucleate.crystal.crystal import Crystal
from nucleate.screening.dft_espresso import OUT, pw_input, read_result, write_inputs
from nucleate.screening.dft_inputs import DFTSettings
from nucleate.screening.dft_results import DFTResult
from nucleate.screening.dft_run import find_program, run_program, write_files
from nucleate.screening.dft_task import DFTRun, RunSettings, relaxed_crystal, require_converged

PROGRAM = "pw.x"


def run_espresso(
    crystal: Crystal, folder: Path, settings: DFTSettings, run: RunSettings | None = None
) -> DFTRun:
    """Results of pw.x for a crystal; SCF and bands are those of the relaxed crystal where it was relaxed.

    Pseudopotentials and the program are looked for before anything starts. The folder keeps inputs (``relax.in``,
    ``scf.in``, ``bands.in``) and outputs (``.out``); wave functions and densities in ``out`` are removed at the
    end.

    Args:
        crystal: the crystal.
        folder: made if it is not there; an earlier ``out`` in it is removed.
        settings: numbers.
        run: tasks, program and time limit.

    Raises:
        DFTError: something is missing, failed, did not converge or took too long.
    """
    run = run or RunSettings()
    write_files(folder, write_inputs(crystal, settings))
    program = find_program(run.program or PROGRAM)
    results: list[DFTResult] = []
    scratch = folder / OUT
    try:
        for task in run.tasks:
            if task != "bands":
                shutil.rmtree(scratch, ignore_errors=True)
            write_files(folder, {f"{task}.in": pw_input(crystal, settings, task).encode()})
            run_program(
                [program, "-in", f"{task}.in"],
                folder,
                output=f"{task}.out",
                timeout=run.timeout,
                threads=run.threads,
            )
            results.append(require_converged(read_result(folder, task), folder))
            if task == "relax":
                crystal = relaxed_crystal(results[-1].cell, crystal)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return DFTRun(crystal, tuple(results))
