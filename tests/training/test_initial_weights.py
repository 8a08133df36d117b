"""What a run takes over from the weights it starts from: all that was not asked for otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nucleate.data import Store
from nucleate.data.manifest import PropertyColumn
from nucleate.errors import CheckpointError, ConfigError
from nucleate.models.checkpoint import Checkpoint, History, load_checkpoint, save_checkpoint
from nucleate.models.orbit_transformer import OrbitTransformer, OrbitTransformerConfig
from nucleate.models.property_head import PropertyHead, PropertyHeadConfig
from nucleate.models.template_transformer import TemplateTransformer, TemplateTransformerConfig
from nucleate.training.config import TrainingConfig
from nucleate.training.crystal_stream import load_crystals
from nucleate.training.initial_weights import started_from
from nucleate.training.part_setup import property_head
from nucleate.training.train import train

GEOMETRY = OrbitTransformerConfig(scalars=16, vectors=4, hidden=16, layers=2, heads=2, num_basis=8)
TEMPLATE = TemplateTransformerConfig(width=16, layers=1, heads=2, dropout=0.3, charge_balance=False)
DIFFUSION = {"kind": "diffusion", "schedule": "cosine", "solver": "sde"}


@pytest.fixture(scope="module")
def start() -> Checkpoint:
    """Small weights whose every choice differs from the default."""
    return Checkpoint(
        geometry=OrbitTransformer(GEOMETRY), template=TemplateTransformer(TEMPLATE), process=DIFFUSION
    )


def _flat(**values: object) -> TrainingConfig:
    return TrainingConfig.from_flat({"max_steps": 1, **values})


def test_what_was_not_asked_for_is_that_of_the_weights(start: Checkpoint) -> None:
    config = started_from(_flat(), start)
    assert config.geometry == GEOMETRY
    assert config.template == replace(TEMPLATE, charge_balance=True)  # what they have not yet is added
    assert (config.process, config.schedule, config.solver) == ("diffusion", "cosine", "sde")
    assert started_from(_flat(template_charge_balance=False), start).template == TEMPLATE
    plain = start.replace(process={**DIFFUSION, "solver": "multistep"})
    assert started_from(_flat(), plain).solver is None  # the process's own


def test_a_value_that_equals_the_default_is_asked_for_where_it_was_given(start: Checkpoint) -> None:
    config = started_from(_flat(geometry_layers=4, template_dropout=0.1, schedule="linear"), start)
    assert config.geometry == replace(GEOMETRY, layers=4)
    assert config.template.dropout == 0.1
    assert (config.schedule, config.solver) == ("linear", "sde")
    given = _flat(process="diffusion", solver="multistep")
    assert started_from(given, start).sampling_solver == "multistep"
    deterministic = start.replace(process={**DIFFUSION, "solver": "multistep"})
    assert started_from(_flat(solver="sde"), deterministic).sampling_solver == "sde"
    with pytest.raises(ConfigError, match="solver sde adds noise on the way"):
        started_from(_flat(solver="sde"), Checkpoint())
    with pytest.raises(ConfigError, match="trained with process: diffusion, asked is flow"):
        started_from(_flat(process="flow"), start)
    with pytest.raises(CheckpointError, match="change num_basis from 8 to 24"):
        started_from(_flat(geometry_num_basis=24), start)
    # a configuration made without keys says no more than where it differs from the default
    assert started_from(TrainingConfig(max_steps=1), start).schedule == "cosine"
    linear = start.replace(process={**DIFFUSION, "schedule": "linear"})
    assert started_from(TrainingConfig(max_steps=1, schedule="cosine"), linear).schedule == "cosine"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"geometry_heads": 5, "geometry_hidden": 32}, "no geometry network .* got hidden 32 and heads 5"),
        (
            {"template_heads": 7},
            "no template network .* width must be a multiple of heads, got width 128 and heads 7",
        ),
        ({"geometry_coarse": 12}, "got coarse 12 and heads 8"),
        ({"geometry_tensors": 4}, "got tensors 4 and heads 8"),
    ],
)
def test_sizes_that_no_network_can_have_are_refused(values: dict, message: str) -> None:
    """Those of both networks, before the first is trained; multiples count for the heads that are there."""
    with pytest.raises(ConfigError, match=message):
        started_from(_flat(**values), Checkpoint())
    untrained = {"part": "template" if "template_heads" not in values else "geometry"}
    assert started_from(_flat(**values, **untrained), Checkpoint()).max_steps == 1


def test_sizes_on_top_of_weights_go_with_their_heads(start: Checkpoint) -> None:
    """The shipped weights have 4 heads and were grown by tensors: 4, which the 8 of the default do not divide."""
    config = started_from(_flat(geometry_tensors=4, geometry_hidden=18), start)
    assert config.geometry == replace(GEOMETRY, tensors=4, hidden=18)
    with pytest.raises(ConfigError, match=r"no geometry network .* got tensors 3 and heads 2"):
        started_from(_flat(geometry_tensors=3), start)


def test_a_network_that_is_not_trained_stays_as_it_is(start: Checkpoint) -> None:
    asked = {"geometry_layers": 4, "template_dropout": 0.1, "process": "flow", "schedule": "linear"}
    config = started_from(_flat(part="template", **asked), start)
    assert config.geometry == GEOMETRY
    assert config.template.dropout == 0.1
    assert (config.process, config.schedule, config.solver) == ("diffusion", "cosine", "sde")
    config = started_from(_flat(part="geometry", geometry_layers=4, template_layers=3), start)
    assert config.geometry.layers == 4
    assert config.template == TEMPLATE
    config = started_from(_flat(part="weak"), start)
    assert (config.process, config.schedule) == ("diffusion", "cosine")


def _head(unit: str) -> PropertyHead:
    return PropertyHead(PropertyHeadConfig(GEOMETRY.scalars, ("band_gap",), (unit,), (1.0,), (1.0,)))


def test_a_head_goes_when_its_network_is_trained_without_it(
    store_path: Path, small_config: Callable[..., TrainingConfig], start: Checkpoint, tmp_path: Path
) -> None:
    """With the figures that were measured of both."""
    measured = {"geometry_val_mae_band_gap": 0.1, "template_val_loss": 9.0}
    first = start.replace(
        properties=_head("eV"),
        lattice_mean=torch.zeros(6),
        lattice_std=torch.ones(6),
        history=History(metrics=measured),
    )
    weights = save_checkpoint(tmp_path / "first.safetensors", first)
    found = {}
    for part in ("geometry", "template"):
        config = small_config(part=part, max_steps=1, sample_crystals=0)
        config = replace(config, given=frozenset())
        report = train(store_path, config, out=tmp_path / part, init=weights)
        found[part] = load_checkpoint(report.weights)
        assert not any("band_gap" in name for name in report.validation[part])
    assert found["geometry"].properties is None
    assert "geometry_val_mae_band_gap" not in found["geometry"].history.metrics
    assert found["geometry"].history.metrics["template_val_loss"] == 9.0
    assert found["template"].properties is not None
    assert found["template"].history.metrics["geometry_val_mae_band_gap"] == 0.1


def test_a_head_of_another_unit_is_refused(
    store: Store, start: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = replace(store.manifest, properties={"band_gap": PropertyColumn("number", "meV", 40)})
    monkeypatch.setattr(Store, "manifest", property(lambda self: manifest))
    config = _flat(part="geometry", properties=["band_gap"])
    crystals = load_crystals(store.split("train"), {}, ("band_gap",))
    with pytest.raises(ConfigError, match="read the property 'band_gap' in eV, the store has it in meV"):
        property_head(config, start.replace(properties=_head("eV")), store, crystals)
    for unit in ("meV", ""):  # where none is stated, none is known to be another
        head = _head(unit)
        assert property_head(config, start.replace(properties=head), store, crystals) is head
