"""Which process, schedule and solver go together: chosen by name, carried by checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from nucleate.crystal.batch import CrystalBatch
from nucleate.errors import ConfigError
from nucleate.processes.geometry_diffusion import GeometryDiffusion
from nucleate.processes.geometry_flow import GeometryFlow
from nucleate.processes.level_table import LevelTable
from nucleate.processes.schedule import Schedule, ScheduleName, make_schedule
from nucleate.processes.solver import find_solver
from nucleate.shapes import Float

ProcessKind = Literal["flow", "diffusion"]
PROCESSES: Mapping[str, type[GeometryFlow] | type[GeometryDiffusion]] = {
    "flow": GeometryFlow,
    "diffusion": GeometryDiffusion,
}


@dataclass(frozen=True, eq=False)
class ProcessChoice:
    """A process with the schedule and the solver to sample it.

    Attributes:
        process: noise of the geometry.
        schedule_name: linear, cosine or learned.
        solver: one of ``solver.SOLVERS``.
        loss_table: mean loss by level, what a learned schedule follows.
        lattice_error: mean square error of the guess at the lattice by level and parameter, in units of the noise: the
            learned variance.
    """

    process: GeometryFlow | GeometryDiffusion
    schedule_name: ScheduleName
    solver: str
    loss_table: LevelTable
    lattice_error: LevelTable

    @property
    def schedule(self) -> Schedule:
        """Noise level at each time."""
        return make_schedule(self.schedule_name, self.loss_table)

    @property
    def lattice_variance(self) -> LevelTable | None:
        """The learned variance, None where nothing was learned."""
        return self.lattice_error if float(self.lattice_error.weights.sum()) > 0 else None

    @classmethod
    def fit(
        cls, batch: CrystalBatch, *, kind: ProcessKind, schedule: ScheduleName, solver: str
    ) -> ProcessChoice:
        """A process with noise as wide as these crystals.

        Raises:
            ConfigError: the solver does not go with the process.
        """
        process = PROCESSES[kind].fit(batch)
        return cls(process, schedule, checked_solver(solver, kind), LevelTable(1), LevelTable(6))

    @classmethod
    def of_flow(cls, flow: GeometryFlow) -> ProcessChoice:
        """A flow by Euler steps at even times."""
        return cls(flow, "linear", "ddim", LevelTable(1), LevelTable(6))

    def settings(self) -> dict[str, str]:
        """Names, as checkpoints carry them."""
        return {"kind": self.process.kind, "schedule": self.schedule_name, "solver": self.solver}

    def tables(self) -> dict[str, Tensor]:
        """What was learned, by name; nothing where nothing was."""
        found = {"loss": self.loss_table, "lattice_error": self.lattice_error}
        return {
            f"{name}.{key}": tensor
            for name, table in found.items()
            if float(table.weights.sum()) > 0
            for key, tensor in table.state_dict().items()
        }

    @classmethod
    def from_state(
        cls,
        settings: Mapping[str, str],
        tables: Mapping[str, Tensor],
        *,
        lattice_mean: Float[Tensor, "6"],
        lattice_std: Float[Tensor, "6"],
    ) -> ProcessChoice:
        """What ``settings`` and ``tables`` wrote.

        Raises:
            ConfigError: a process, schedule or solver that is not known.
        """
        kind = settings["kind"]
        if kind not in PROCESSES:
            raise ConfigError(
                f"There is no process {kind!r}; they are {', '.join(PROCESSES)}: update nucleate"
            )
        if settings["schedule"] not in get_args(ScheduleName):
            raise ConfigError(
                f"There is no schedule {settings['schedule']!r}; they are {', '.join(get_args(ScheduleName))}: update "
                "nucleate"
            )
        loaded = {"loss": LevelTable(1), "lattice_error": LevelTable(6)}
        for name, table in loaded.items():
            mine = {
                key.removeprefix(f"{name}."): value.double()
                for key, value in tables.items()
                if key.startswith(f"{name}.")
            }
            if mine:
                table = LevelTable(mine["sums"].shape[1], bins=mine["sums"].shape[0]).to(lattice_mean.device)
                table.load_state_dict(mine)
                loaded[name] = table
        return cls(
            PROCESSES[kind](lattice_mean, lattice_std),
            settings["schedule"],  # type: ignore[arg-type]
            checked_solver(settings["solver"], kind),
            loaded["loss"],
            loaded["lattice_error"],
        )


def checked_solver(name: str, kind: str) -> str:
    """The name of a solver that goes with a process.

    Raises:
        ConfigError: there is none, or it draws noise that the process cannot add.
    """
    if find_solver(name).stochastic and kind == "flow":
        raise ConfigError(
            f"The solver {name} adds noise on the way, which the process flow cannot: use ddim, heun or multistep, or "
            "train with process: diffusion"
        )
    return name


def default_solver(kind: ProcessKind) -> str:
    """What samples a process where nothing is said: Euler steps for the flow, second order for diffusion."""
    return "ddim" if kind == "flow" else "multistep"
