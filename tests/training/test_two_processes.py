"""Two processes train one network: what they validate, and that they end together."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nucleate.data import Store
from nucleate.models.checkpoint import load_checkpoint
from nucleate.training.config import TrainingConfig, config_yaml
from nucleate.training.crystal_stream import CrystalStream
from nucleate.training.part_setup import size_limits
from nucleate.training.train import train

Configs = Callable[..., TrainingConfig]
SCRIPT = Path(__file__).with_name("two_processes.py")


def run_in_two(
    store: Path, folder: Path, configs: dict[str, TrainingConfig], **environment: str
) -> dict[str, list[Any]]:
    """What each rank says of each training."""
    for name, config in configs.items():
        (folder / f"{name}.yaml").write_text(config_yaml(config))
    result = subprocess.run(
        [sys.executable, str(SCRIPT), str(store), str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        timeout=600,
    )
    assert result.returncode == 0, result.stderr
    return {
        name: [json.loads((folder / f"{name}.{rank}.json").read_text()) for rank in (0, 1)]
        for name in configs
    }


def test_two_processes_validate_what_one_does(
    store_path: Path, small_config: Configs, tmp_path: Path
) -> None:
    """With fewer batches than ranks, and with a number that they cannot share evenly."""

    def config(size: int, devices: int) -> TrainingConfig:
        return small_config(
            part="geometry",
            max_steps=2,
            validate_every=2,
            learning_rate=1e-9,  # so small that all validate the network they began with
            batch_size=size,
            devices=devices,
            sample_crystals=0,
        )

    sizes = {"one_batch": 64, "three_batches": 8}
    alone = {
        name: train(store_path, config(size, 1), out=tmp_path / f"{name}_alone").validation["geometry"]
        for name, size in sizes.items()
    }
    assert alone["one_batch"]["loss"] != pytest.approx(alone["three_batches"]["loss"], rel=1e-4)
    found = run_in_two(store_path, tmp_path, {name: config(size, 2) for name, size in sizes.items()})
    for name, ranks in found.items():
        assert [r["costs"]["geometry"]["processes"] for r in ranks] == [2, 2]
        assert ranks[0]["validation"] == ranks[1]["validation"]
        assert ranks[0]["validation"]["geometry"] == pytest.approx(alone[name], rel=1e-5)
        history = load_checkpoint(tmp_path / name / "weights.safetensors").history
        assert history.training["geometry"]["processes"] == 2


def test_what_happens_on_one_rank_happens_to_all(
    store_path: Path, small_config: Configs, tmp_path: Path
) -> None:
    """What is not finite is named and ends all trainings; Ctrl-C stops all at the same step."""
    config = small_config(
        part="geometry", max_steps=2, accumulate=2, validate_every=2, sample_crystals=0, devices=2
    )
    bad, element = _crystal_of_second_rank(store_path, config)
    names = [f"{what}{end}" for what in ("loss", "gradient") for end in ("", "_strict")]
    configs = {**dict.fromkeys(names, config), "interrupted": replace(config, max_steps=4)}
    found = run_in_two(store_path, tmp_path, configs, SPOILED=str(element))
    for what in ("loss", "gradient"):
        assert [r["num_non_finite"] for r in found[what]] == [1, 1]
        with (tmp_path / what / "non_finite.csv").open() as stream:
            assert [(r["id"], r["not_finite"]) for r in csv.DictReader(stream)] == [(bad, what)]
        for rank in found[f"{what}_strict"]:
            assert f"1 batches of the geometry network had a {what} that is not finite" in rank["error"]
    for rank in found["interrupted"]:
        assert "repeat the command to go on" in rank["interrupted"]
    history = load_checkpoint(tmp_path / "interrupted" / "weights.safetensors").history
    assert history.training["geometry"]["steps"] == 2
    assert not json.loads((tmp_path / "interrupted" / "run.json").read_text())["finished"]


def _crystal_of_second_rank(store_path: Path, config: TrainingConfig) -> tuple[str, int]:
    """A crystal of the second rank's first batch, and an element that no other training crystal has."""
    training = Store.open(store_path).split("train")
    stream = CrystalStream(
        training, tokens={}, limits=size_limits(config), seed=config.seed, rank=1, num_ranks=2
    )
    first = set(next(iter(stream)).content.rows.tolist())
    records = list(training.iter_records())
    times = Counter(z for r in records for z in set(r.crystal.atomic_numbers.tolist()))
    return next(
        (r.id, int(z))
        for r in records
        if r.row in first
        for z in r.crystal.atomic_numbers
        if times[int(z)] == 1
    )


def test_the_command_starts_two_processes_and_one_says_what_comes(
    store_path: Path, small_config: Configs, tmp_path: Path
) -> None:
    """``nucleate train --devices 2``, as a user types it."""
    (tmp_path / "small.yaml").write_text(config_yaml(small_config(part="geometry", max_steps=2)))
    out = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "nucleate",
        "train",
        str(store_path),
        "--out",
        str(out),
        "--devices",
        "2",
    ]
    result = subprocess.run(
        [*command, "--config", str(tmp_path / "small.yaml")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=600,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("weights.safetensors") == 1, result.stdout
    assert load_checkpoint(out / "weights.safetensors").history.training["geometry"]["processes"] == 2
