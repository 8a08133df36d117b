"""Two processes train one network: what they validate, and what each of them says of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nucleate.models.checkpoint import load_checkpoint
from nucleate.training.config import TrainingConfig, config_yaml
from nucleate.training.train import train

Configs = Callable[..., TrainingConfig]
SCRIPT = Path(__file__).with_name("two_processes.py")


def run_in_two(store: Path, folder: Path, configs: dict[str, TrainingConfig]) -> dict[str, list[Any]]:
    """What each rank says of each training."""
    for name, config in configs.items():
        (folder / f"{name}.yaml").write_text(config_yaml(config))
    result = subprocess.run(
        [sys.executable, str(SCRIPT), str(store), str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
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
    sizes = {"one_batch": 64, "three_batches": 8}
    # at this rate both validate the network they began with
    configs = {
        name: small_config(
            part="geometry",
            max_steps=2,
            validate_every=2,
            learning_rate=1e-9,
            batch_size=size,
            sample_crystals=0,
        )
        for name, size in sizes.items()
    }
    alone = {
        name: train(store_path, config, out=tmp_path / f"{name}_alone").validation["geometry"]
        for name, config in configs.items()
    }
    assert alone["one_batch"]["loss"] != pytest.approx(alone["three_batches"]["loss"], rel=1e-4)
    together = {name: TrainingConfig.from_flat({**c.to_flat(), "devices": 2}) for name, c in configs.items()}
    found = run_in_two(store_path, tmp_path, together)
    for name, ranks in found.items():
        assert [r["costs"]["geometry"]["processes"] for r in ranks] == [2, 2]
        assert ranks[0]["validation"] == ranks[1]["validation"]
        assert ranks[0]["validation"]["geometry"] == pytest.approx(alone[name], rel=1e-5)
        history = load_checkpoint(tmp_path / name / "weights.safetensors").history
        assert history.training["geometry"]["processes"] == 2
