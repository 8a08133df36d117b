"""A DFT run of a crystal: tasks one after the other in one folder, the relaxed crystal in its own symmetry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nucleate.crystal.crystal import Crystal
from nucleate.crystal.encoding import encode
from nucleate.crystal.unit_cell import UnitCell
from nucleate.errors import ConfigError, DFTError, NucleateError
from nucleate.screening.dft_inputs import TASKS
from nucleate.screening.dft_results import DFTResult

RELAXED_SYMPREC = 0.02
"""Tolerance (Å) of the symmetry search in a cell that a DFT program relaxed and printed."""


@dataclass(frozen=True, eq=False)
class DFTRun:
    """What came of running a DFT program for a crystal.

    Attributes:
        crystal: the relaxed crystal, or the given one without relaxation.
        results: of the tasks in the order they ran.
    """

    crystal: Crystal
    results: tuple[DFTResult, ...]

    def result(self, task: str) -> DFTResult | None:
        """The result of a task, None where it did not run."""
        return next((result for result in self.results if result.task == task), None)


@dataclass(frozen=True)
class RunSettings:
    """How a program is run; nothing here changes numbers.

    Attributes:
        tasks: of ``relax``, ``scf``, ``bands``, in this order; bands need scf.
        program: name or path of the program; empty for the usual one.
        timeout: seconds for one task.
        threads: OpenMP threads.
    """

    tasks: tuple[str, ...] = TASKS
    program: str = ""
    timeout: float = 3600.0
    threads: int = 1

    def __post_init__(self) -> None:
        if not self.tasks or [t for t in TASKS if t in self.tasks] != list(self.tasks):
            raise ConfigError(
                f"tasks are {', '.join(TASKS)} in this order, got {', '.join(self.tasks) or 'none'}"
            )
        if "bands" in self.tasks and "scf" not in self.tasks:
            raise ConfigError("a band structure needs the charge density of scf: run scf and bands")
        if not self.timeout > 0:
            raise ConfigError(f"the time limit is a positive number of seconds, got {self.timeout}")
        if self.threads < 1:
            raise ConfigError(f"a program needs at least one thread, got {self.threads}")


def relaxed_crystal(cell: UnitCell, before: Crystal) -> Crystal:
    """The crystal of a relaxed cell; with the symmetry found at ``RELAXED_SYMPREC``.

    Raises:
        DFTError: the cell is no crystal any more.
    """
    try:
        return encode(cell, symprec=RELAXED_SYMPREC).crystal
    except NucleateError as error:
        raise DFTError(f"the relaxed cell of {before.formula} is no crystal: {error}") from error


def require_converged(result: DFTResult, folder: Path) -> DFTResult:
    """The result.

    Raises:
        DFTError: it did not converge.
    """
    if not result.converged:
        raise DFTError(
            f"{result.code} did not converge in {result.task} (largest force {result.max_force} eV/Å, pressure "
            f"{result.pressure} GPa); its output is in {folder}"
        )
    return result


def last(results: Sequence[DFTResult], *tasks: str) -> DFTResult | None:
    """The first of these tasks that ran."""
    return next((r for task in tasks for r in results if r.task == task), None)
