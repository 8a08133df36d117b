"""Configurations: flat YAML both ways, unknown keys and wrong values refused with the way out."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from nucleate.errors import ConfigError
from nucleate.training.config import WEAK, TrainingConfig, config_yaml, read_config
from nucleate.training.network_module import Budget, cosine_with_warmup
from nucleate.training.part_setup import accelerator_of


def test_yaml_there_and_back(tmp_path: Path) -> None:
    config = TrainingConfig.from_flat(
        {
            "minutes": 30,
            "geometry_layers": 7,
            "template_width": 96,
            "curriculum": True,
            "learning_rate": "3e-4",
        }
    )
    assert config.geometry.layers == 7
    assert config.template.width == 96
    assert config.learning_rate == 3e-4
    (tmp_path / "x.yaml").write_text(config_yaml(config))
    assert read_config(tmp_path / "x.yaml") == config
    assert read_config(tmp_path / "x.yaml", seed=5).seed == 5


def test_what_was_given_is_known(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("schedule: linear\ngeometry_layers: 4\n")
    config = read_config(tmp_path / "x.yaml", minutes=1)
    assert config.given == {"schedule", "geometry_layers", "minutes"}
    assert config.asks_for("geometry_layers")
    assert not config.asks_for("geometry_hidden")
    assert "given" not in config.to_flat()
    with pytest.raises(ConfigError, match="unknown key 'given'"):
        TrainingConfig.from_flat({"minutes": 1, "given": []})
    unknown = TrainingConfig(minutes=1.0, schedule="cosine", weak=replace(WEAK, layers=5))
    assert {key for key in unknown.to_flat() if unknown.asks_for(key)} >= {"schedule", "weak_layers"}
    assert not unknown.asks_for("weak_scalars")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"minutes": 1, "geometry_layer": 3},
            "unknown key 'geometry_layer'; the nearest known one is 'geometry_layers'",
        ),
        ({"minutes": 1, "lerning_rate": 3}, "nearest known one is 'learning_rate'"),
        ({"minutes": 1, "batch_size": 1.5}, "batch_size .* must be of type int, got 1.5"),
        ({"minutes": 1, "curriculum": 1}, "curriculum .* must be of type bool"),
        (
            {"minutes": 1, "part": "all"},
            "part .* is one of geometry, template, both, weak, properties, got 'all'",
        ),
        ({"minutes": 1, "learning_rate": "fast"}, "must be of type float"),
        ({"minutes": 1, "batch_size": 0}, "batch_size must be greater than 0, got 0"),
        ({"minutes": 1, "same_time": 1.5}, "same_time must be between 0 and 1"),
        ({"minutes": 1, "volume_weight": -1}, "volume_weight must not be negative"),
        (
            {"minutes": 1, "template_share": 0},
            "template_share must lie between 0 and 1 .* got 0.0: name the one to train with part",
        ),
        ({"minutes": 1, "template_share": 1}, "template_share must lie between 0 and 1"),
        ({"minutes": 1, "seed": -1}, "seed must not be negative, got -1"),
        ({"minutes": 1, "accelerator": "mps"}, "mps has no 64-bit floats, .* use cpu or cuda"),
        ({"minutes": 1, "template_heads": 0}, "no template network .* heads must be greater than 0, got 0"),
        ({"minutes": 1, "geometry_reciprocal": -1}, "reciprocal must not be negative"),
        ({"minutes": 1, "template_dropout": 1.0}, "dropout must be below 1, got 1.0"),
        ({}, "needs a budget"),
    ],
)
def test_what_cannot_be_is_refused(values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainingConfig.from_flat(values)


@pytest.mark.parametrize(("text", "message"), [("- a\n- b\n", "holds a list"), ("a: [", "is not YAML")])
def test_what_is_no_flat_yaml_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_config(tmp_path / "x.yaml")


def test_minutes_are_shared_between_the_parts() -> None:
    config = TrainingConfig(minutes=10.0, template_share=0.25)
    assert (config.minutes_of("geometry"), config.minutes_of("template")) == (7.5, 2.5)
    assert TrainingConfig(minutes=10.0, part="template").minutes_of("template") == 10
    assert TrainingConfig(minutes=10.0, part="template", template_share=0.0).minutes_of("template") == 10
    assert TrainingConfig(max_steps=10, template_share=0.0).minutes_of("template") is None


def test_budget_ends_with_whichever_comes_first() -> None:
    budget = Budget(minutes=1.0, max_steps=100)
    assert budget.fraction(50, 6.0) == 0.5
    assert budget.fraction(10, 45.0) == 0.75
    assert budget.fraction(200, 0.0) == 1


def test_learning_rate_warms_up_and_ends_low() -> None:
    factors = [cosine_with_warmup(k, k / 1000, warmup_steps=100, final=0.02) for k in range(1001)]
    assert factors[0] == pytest.approx(0.01)
    assert max(factors) == pytest.approx(factors[99], abs=0.01)
    assert factors[-1] == pytest.approx(0.02)
    assert all(a >= b for a, b in pairwise(factors[100:]))


def test_a_training_shorter_than_its_warm_up_still_reaches_its_learning_rate() -> None:
    """70 steps within five minutes once ran at 0.4 % of the learning rate."""
    factors = [cosine_with_warmup(k, k / 70, warmup_steps=300, final=0.02) for k in range(71)]
    assert max(factors) > 0.95
    assert factors[0] < 0.01
    assert factors[-1] == pytest.approx(0.02)


def test_auto_is_cuda_or_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """And never Apple's mps, which Lightning counts among the GPUs."""
    for there, names in ((True, {"auto": "cuda", "gpu": "cuda", "cpu": "cpu"}), (False, {"auto": "cpu"})):
        monkeypatch.setattr("torch.cuda.is_available", lambda there=there: there)
        found = {name: accelerator_of(TrainingConfig(minutes=1.0, accelerator=name)) for name in names}
        assert found == names
    for name in ("gpu", "cuda"):
        with pytest.raises(ConfigError, match=f"accelerator: {name} is asked for, but torch finds no CUDA"):
            accelerator_of(TrainingConfig(minutes=1.0, accelerator=name))
