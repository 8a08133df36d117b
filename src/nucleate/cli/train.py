"""``nucleate train``: networks from an encoded store."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from nucleate.cli.current_folder import look_in_current_folder

if TYPE_CHECKING:
    from nucleate.training.recorder import TrainingProgress
    from nucleate.training.train import TrainingReport


class Part(StrEnum):
    """Networks that can be trained."""

    GEOMETRY = "geometry"
    TEMPLATE = "template"
    BOTH = "both"
    WEAK = "weak"
    PROPERTIES = "properties"


def train(
    store: Annotated[str, typer.Argument(metavar="DIR", help="A store built by `nucleate data build`.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run.")] = Path("runs/train"),
    config: Annotated[
        Path | None, typer.Option(help="Flat YAML file of settings; see docs/train.md.")
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            metavar="WEIGHTS",
            help="Weights to start from (fine-tuning): a file, or `shipped` for those that come with the package.",
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(help="Wall-clock budget; 60 if neither it, --max-steps nor --config is given."),
    ] = None,
    max_steps: Annotated[int | None, typer.Option(help="Budget of optimiser steps of each part.")] = None,
    part: Annotated[
        Part | None,
        typer.Option(
            help="What to train: geometry, template or both; weak adds to --init the small network that autoguidance "
            "leads away from, properties a head that reads properties off the geometry network of --init."
        ),
    ] = None,
    properties: Annotated[
        str | None,
        typer.Option(help="Numeric properties of the store to learn, such as band_gap,formation_energy."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Another seed, another training.")] = None,
    devices: Annotated[
        int | None, typer.Option(help="Processes per machine, one per device, that train together.")
    ] = None,
) -> None:
    """Train the networks on the split `train` of a store and write their weights.

    The folder then holds `weights.safetensors` (of the best validation so far; without one, of the last step),
    `metrics.csv`, `loss.png`, `samples.png`, TensorBoard logs and checkpoints. A run that was stopped goes on when the
    command is repeated. Options given here win over the configuration file. Without that file and without a budget a
    run takes 60 minutes.

    **Examples:**

    - `nucleate train store --minutes 60 --out runs/first`

    - `nucleate train store --init shipped --minutes 60 --out runs/tuned`

    - `nucleate train store --init runs/first/weights.safetensors --part template --minutes 10 --out runs/templates`

    - `nucleate train store --init runs/first/weights.safetensors --part weak --minutes 10 --out runs/guided`

    - `nucleate train store --init shipped --part properties --properties band_gap --minutes 5 --out runs/gaps`

    - `nucleate train store --config big.yaml --devices 4 --out runs/big`
    """
    # These load torch and lightning; the help text needs neither.
    from nucleate.cli.progress_bars import share_bar  # noqa: PLC0415
    from nucleate.training.config import TrainingConfig, read_config  # noqa: PLC0415
    from nucleate.training.train import is_main_process  # noqa: PLC0415
    from nucleate.training.train import train as train_networks  # noqa: PLC0415

    given = {
        "minutes": minutes,
        "max_steps": max_steps,
        "part": None if part is None else part.value,
        "properties": None
        if properties is None
        else [name for name in re.split(r"[\s,]+", properties) if name],
        "seed": seed,
        "devices": devices,
    }
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if config is None and minutes is None and max_steps is None:
        changes["minutes"] = 60.0
    settings = TrainingConfig.from_flat(changes) if config is None else read_config(config, **changes)
    if ":" in settings.energy:
        look_in_current_folder()
    main_process = is_main_process()
    with share_bar("training") as progress:
        bars: dict[str, Any] = {}

        def show(state: TrainingProgress) -> None:
            if state.part not in bars:
                bars[state.part] = progress.add_task(state.part, total=1.0, note="")
            progress.update(bars[state.part], completed=state.fraction, note=_note(state))

        try:
            report = train_networks(
                store, settings, out=out, init=init, on_progress=show if main_process else None
            )
        except KeyboardInterrupt as interrupt:
            if main_process:
                raise
            raise typer.Exit from interrupt  # with any other code Lightning would kill the process that says it
    if main_process:
        _print_report(report)


def _note(state: TrainingProgress) -> str:
    loss = state.losses.get("loss", float("nan"))
    note = f"{state.part}, step {state.step:,}, loss {loss:.3f}, {state.crystals_per_second:.0f} crystals/s"
    if "loss" in state.validation_losses:
        note += f", validation {state.validation_losses['loss']:.3f}"
    return note


def _print_report(report: TrainingReport) -> None:
    output = Console(highlight=False)
    for part, cost in report.costs.items():
        losses = ", ".join(f"{name} {value:.4g}" for name, value in report.validation.get(part, {}).items())
        output.print(
            f"[bold]{part}[/bold]: {cost['steps']:,} steps, {cost['minutes']:.1f} minutes, "
            f"{cost['parameters']:,} parameters" + (f"; validation: {losses}" if losses else "")
        )
    if report.num_left_out:
        output.print(
            f"[yellow]{report.num_left_out:,} crystals left out[/yellow]: more orbits or atoms than max_orbits and "
            "max_atoms"
        )
    if report.num_non_finite:
        output.print(
            f"[yellow]{report.num_non_finite:,} batches had losses or gradients that were not finite[/yellow]; the "
            "crystals are named in non_finite.csv"
        )
    output.print(f"Weights: {escape(str(report.weights))}", soft_wrap=True)
