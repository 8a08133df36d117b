"""The step ``dft``: complete inputs for the programs asked for, and a run where one is to be run."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa

from nucleate.crystal import Crystal
from nucleate.errors import ConfigError, DFTError
from nucleate.evaluation.column import Column
from nucleate.screening.dft_gpaw import PYTHON, run_gpaw
from nucleate.screening.dft_inputs import CODES, DFTSettings, dft_inputs
from nucleate.screening.dft_run import find_program
from nucleate.screening.dft_task import DFTRun, RunSettings, last
from nucleate.screening.espresso_run import PROGRAM, run_espresso
from nucleate.screening.step import Resources, StepResult, Value, settings_digest

VERSION = "dft-1"
RUNNERS = {"espresso": (run_espresso, PROGRAM), "gpaw": (run_gpaw, PYTHON)}
"""Programs that can be run, and what is run by default."""

_KEPT = (".in", ".out", ".err", ".json", ".txt", ".log", ".py")
_LARGEST_KEPT = 20 * 1024 * 1024

COLUMNS = (
    Column("dft_inputs", pa.string(), "Programs that inputs were written for (details/ID/dft/)."),
    Column("dft_k_mesh", pa.string(), "Divisions of the Gamma-centred mesh of the first of them."),
    Column("dft_initial_moment", pa.float64(), "Sum of the initial moments.", "μB/cell"),
    Column("dft_program", pa.string(), "Program that was run."),
    Column(
        "dft_energy_per_atom", pa.float64(), "Total energy, on the scale of its pseudopotentials.", "eV/atom"
    ),
    Column("dft_volume_per_atom", pa.float64(), "Volume that was found.", "Å^3"),
    Column("dft_volume_ratio", pa.float64(), "It over the volume before."),
    Column("dft_space_group", pa.int64(), "Space group that was found."),
    Column("dft_max_force", pa.float64(), "Largest force at the end.", "eV/Å"),
    Column("dft_pressure", pa.float64(), "Pressure at the end.", "GPa"),
    Column("dft_gap", pa.float64(), "Gap on the mesh, or along the path where bands were run.", "eV"),
)


@dataclass(frozen=True)
class Settings(DFTSettings):
    """Settings of the step ``dft``: those of the inputs (``DFTSettings``) and how it is run.

    Attributes:
        codes: programs to write inputs for, separated by commas: ``vasp``, ``espresso``, ``cp2k``, ``gpaw``.
        run: one of ``espresso`` and ``gpaw`` to run it; empty writes inputs only.
        tasks: what is run, separated by commas: ``relax``, ``scf``, ``bands``.
        program: name or path of the program; empty for ``pw.x`` and ``/usr/bin/python3``.
        timeout: seconds for one task.
        threads: OpenMP threads of the program.
    """

    codes: str = "vasp"
    run: str = ""
    tasks: str = "relax,scf,bands"
    program: str = ""
    timeout: float = 3600.0
    threads: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = [code for code in self.code_names() if code not in CODES]
        if unknown or not self.code_names():
            raise ConfigError(f"dft.codes are {', '.join(CODES)}, got {self.codes!r}")
        if self.run and self.run not in RUNNERS:
            raise ConfigError(f"dft.run is empty or one of {', '.join(RUNNERS)}, got {self.run!r}")
        self.run_settings()

    def code_names(self) -> list[str]:
        """Programs to write inputs for; the one that is run is among them."""
        names = [name.strip() for name in self.codes.split(",") if name.strip()]
        return list(dict.fromkeys([*names, self.run] if self.run else names))

    def run_settings(self) -> RunSettings:
        """How the program is run."""
        tasks = tuple(task.strip() for task in self.tasks.split(",") if task.strip())
        return RunSettings(tasks, self.program, self.timeout, self.threads)

    def numbers(self) -> DFTSettings:
        """What decides the numbers."""
        return DFTSettings(**{f.name: getattr(self, f.name) for f in fields(DFTSettings)})


@dataclass(frozen=True)
class DFTStep:
    """Writes inputs and, where asked, runs a program and reads its results back; see ``Settings``."""

    settings: Settings
    resources: Resources
    name: str = "dft"
    columns: tuple[Column, ...] = COLUMNS
    uses: tuple[str, ...] = ()

    def digest(self) -> str:
        """Hash over everything but the time limit and the number of threads."""
        relevant = {n: v for n, v in asdict(self.settings).items() if n not in ("timeout", "threads")}
        return settings_digest(self.name, VERSION, relevant)

    def run(self, candidate_id: str, crystal: Crystal, properties: Mapping[str, Any]) -> StepResult:
        """The verdict on one crystal: inputs for every program, and the results of the one that is run."""
        numbers = self.settings.numbers()
        files: dict[str, bytes] = {}
        columns: dict[str, Value] = {"dft_inputs": " ".join(self.settings.code_names())}
        try:
            for code in self.settings.code_names():
                inputs = dft_inputs(crystal, code, numbers)
                files |= {f"dft/{code}/{name}": content for name, content in inputs.files.items()}
                columns.setdefault("dft_k_mesh", " ".join(map(str, inputs.k_mesh)))
                columns.setdefault("dft_initial_moment", float(sum(inputs.moments)))
            if not self.settings.run:
                return StepResult(crystal, "passed", columns, files=files)
            return self._ran(crystal, numbers, columns, files)
        except DFTError as error:
            return StepResult(crystal, "failed", columns, str(error), files)

    def _ran(
        self, crystal: Crystal, numbers: DFTSettings, columns: dict[str, Value], files: dict[str, bytes]
    ) -> StepResult:
        runner, _ = RUNNERS[self.settings.run]
        scratch = self.resources.scratch or None
        if scratch:
            Path(scratch).mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="dft-", dir=scratch))
        columns["dft_program"] = self.settings.run
        try:
            found = runner(crystal, folder, numbers, self.settings.run_settings())
        except DFTError as error:
            return StepResult(crystal, "failed", columns, str(error), files | self._kept(folder))
        else:
            columns |= dft_columns(found, crystal)
            return StepResult(found.crystal, "passed", columns, files=files | self._kept(folder))
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _kept(self, folder: Path) -> dict[str, bytes]:
        """Texts of a run by name; larger ones than 20 MiB are left out."""
        return {
            f"dft/{self.settings.run}/{path.name}": path.read_bytes()
            for path in sorted(folder.iterdir())
            if path.is_file() and path.suffix in _KEPT and 0 < path.stat().st_size <= _LARGEST_KEPT
        }


def dft_columns(found: DFTRun, before: Crystal) -> dict[str, Value]:
    """The columns of a run."""
    columns: dict[str, Value] = {
        "dft_volume_per_atom": found.crystal.volume_per_atom,
        "dft_volume_ratio": found.crystal.volume_per_atom / before.volume_per_atom,
        "dft_space_group": found.crystal.space_group_number,
    }
    energy = last(found.results, "scf", "relax")
    if energy is not None and energy.energy is not None:
        columns["dft_energy_per_atom"] = energy.energy / energy.cell.num_atoms
        columns["dft_max_force"], columns["dft_pressure"] = energy.max_force, energy.pressure
    gap = last(found.results, "bands", "scf", "relax")
    if gap is not None:
        columns["dft_gap"] = gap.gap
    return columns


def make_step(settings: Settings, resources: Resources) -> DFTStep:
    """The step ``dft``; a program that is to be run is looked for at once.

    Raises:
        DFTError: it is not there.
    """
    if settings.run:
        find_program(settings.program or RUNNERS[settings.run][1])
    return DFTStep(settings, resources)
