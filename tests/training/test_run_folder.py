"""The folder of a run: what goes on in it, what may start anew, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nucleate.errors import ConfigError, NucleateError, TrainingError
from nucleate.training.config import TrainingConfig
from nucleate.training.run_folder import RunFolder
from nucleate.training.train import train

Configs = Callable[..., TrainingConfig]
DATA = {"data_hash": "d", "store": "store"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"properties": ("gap",)},
        {"sampling_weights": ("crystal=2",)},
    ],
)
def test_a_command_that_fails_on_a_setting_leaves_its_folder_to_the_right_one(
    store_path: Path, small_config: Configs, tmp_path: Path, wrong: dict
) -> None:
    with pytest.raises(NucleateError):
        train(store_path, small_config(part="geometry", **wrong), out=tmp_path / "run")
    config = small_config(part="geometry", max_steps=1, sample_crystals=0)
    assert train(store_path, config, out=tmp_path / "run").costs["geometry"]["steps"] == 1


def test_an_energy_that_is_not_there_is_said_before_anything_is_written(
    store_path: Path, small_config: Configs, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="cannot be loaded"):
        train(store_path, small_config(energy_weight=0.1, energy="math:energies"), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kept", ["weights.safetensors", "checkpoints/geometry.ckpt", "finished"])
def test_a_folder_with_something_in_it_keeps_its_settings(
    small_config: Configs, tmp_path: Path, kept: str
) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.begin(small_config(seed=1), **DATA, init=None)
    folder.add_metrics("geometry", 2, 0.1, "train", {"loss": 1.0})
    folder.begin(small_config(seed=2), **DATA, init=None)
    assert (folder.state() or {})["config"]["seed"] == 2
    assert not folder.read_metrics()
    if kept == "finished":
        folder.finish("geometry", {"steps": 8, "minutes": 0.1})
    else:
        (tmp_path / "run" / kept).parent.mkdir(exist_ok=True)
        (tmp_path / "run" / kept).touch()
    with pytest.raises(TrainingError, match="seed 2 there, 3 asked"):
        folder.begin(small_config(seed=3), **DATA, init=None)
    folder.begin(small_config(seed=2), **DATA, init=None)


def test_other_initial_weights_of_the_same_name_are_refused(small_config: Configs, tmp_path: Path) -> None:
    """Those of another name and the same content are the same; a run of before hashes were kept goes on."""
    names = ("a/weights.safetensors", "b/weights.safetensors", "b/copied.safetensors")
    for name, content in zip(names, ("first", "second", "first")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    first, second, copied = (tmp_path / name for name in names)
    folder, config = RunFolder(tmp_path / "run"), small_config()
    folder.begin(config, **DATA, init=first)
    folder.finish("geometry", {"steps": 8, "minutes": 0.1})
    with pytest.raises(
        TrainingError, match=r"init 'weights\.safetensors with hash \w{32}' there, 'weights\."
    ):
        folder.begin(config, **DATA, init=second)
    with pytest.raises(TrainingError, match=r"init 'weights\.safetensors' there, None asked"):
        folder.begin(config, **DATA, init=None)
    folder.begin(config, **DATA, init=copied)
    state = folder.state() or {}
    assert state["init"] == "copied.safetensors"
    del state["init_hash"]
    (tmp_path / "run" / "run.json").write_text(json.dumps({**state, "init": "weights.safetensors"}))
    folder.begin(config, **DATA, init=second)
    with pytest.raises(TrainingError, match="there, 'weights"):
        folder.begin(config, **DATA, init=first)
