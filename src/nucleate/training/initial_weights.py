"""What a run takes over from the weights it starts from."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from nucleate.errors import ConfigError
from nucleate.models.checkpoint import Checkpoint, default_weights
from nucleate.models.growth import check_growth, check_template_growth
from nucleate.models.template_transformer import SWITCHES
from nucleate.processes.choice import checked_solver, default_solver
from nucleate.training.config import TrainingConfig

SHIPPED = "shipped"
"""The weights that come with the package, where weights to start from are named."""


def weights_file(init: str | os.PathLike[str]) -> Path:
    """The file of the weights to start from, ``shipped`` being those that come with the package.

    Raises:
        CheckpointError: none come with it.
    """
    return default_weights() if init == SHIPPED else Path(init)


def started_from(config: TrainingConfig, start: Checkpoint) -> TrainingConfig:
    """The configuration with sizes, process, schedule and solver of the weights, where others were not asked for.

    Networks that are not trained are as they are in the weights. A template network is given what it has not yet of the
    ``SWITCHES``, unless they are switched off.

    Raises:
        CheckpointError: a network cannot grow to the sizes asked for.
        ConfigError: there can be no network of such sizes, the solver does not go with the process, the geometry
            network was trained with another process than asked for, or there is none that a weak one could join.
    """
    if start.geometry is None and config.part == "weak":
        raise ConfigError(
            "The weak network is for weights that have a geometry network: name them with --init, or train one first"
        )
    if start.geometry is None and config.part == "properties":
        raise ConfigError(
            "A property head reads a geometry network: name weights that hold one with --init, or train one with "
            "`properties` and part: geometry"
        )
    for part in ("geometry", "weak", "template"):
        network = getattr(start, part)
        if network is not None:
            config = replace(config, **{part: _sizes(config, part, network.config)})
    for part in config.networks():
        try:
            getattr(config, part).check()
        except ConfigError as error:
            raise ConfigError(f"There can be no {part} network of these sizes: {error}") from error
    if start.geometry is not None:
        config = _with_process(config, start)
    checked_solver(config.sampling_solver, config.process)
    return config


def _sizes(config: TrainingConfig, part: str, there: Any) -> Any:
    """The sizes of a network of the weights, with those asked for where it is trained."""
    if part not in config.parts():
        return there
    wanted = getattr(config, part)
    names = {f.name for f in fields(there) if config.asks_for(f"{part}_{f.name}")}
    if part == "template":
        names.update(SWITCHES)
    sizes = replace(there, **{name: getattr(wanted, name) for name in names})
    (check_template_growth if part == "template" else check_growth)(there, sizes)
    return sizes


def _with_process(config: TrainingConfig, start: Checkpoint) -> TrainingConfig:
    """The configuration with the noise of the weights; schedule and solver may be other ones where it is trained."""
    kind, solver = start.process["kind"], start.process["solver"]
    trained = config.part in ("geometry", "both", "weak")
    if trained and config.asks_for("process") and config.process != kind:
        raise ConfigError(
            f"The initial weights were trained with process: {kind}, asked is {config.process}: leave process out of "
            "the configuration, or train without --init"
        )
    taken: dict[str, Any] = {"process": kind}
    if not (trained and config.asks_for("schedule")):
        taken["schedule"] = start.process["schedule"]
    if not (trained and config.asks_for("solver")):
        taken["solver"] = None if solver == default_solver(taken["process"]) else solver
    return replace(config, **taken)
