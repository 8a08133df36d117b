"""What a run takes over from the weights it starts from: all that was not asked for otherwise."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nucleate.errors import CheckpointError, ConfigError
from nucleate.models.checkpoint import Checkpoint
from nucleate.models.orbit_transformer import OrbitTransformer, OrbitTransformerConfig
from nucleate.models.template_transformer import TemplateTransformer, TemplateTransformerConfig
from nucleate.training.config import TrainingConfig
from nucleate.training.initial_weights import started_from

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
    with pytest.raises(ConfigError, match="trained with process: diffusion, asked is flow"):
        started_from(_flat(process="flow"), start)
    with pytest.raises(CheckpointError, match="change heads from 2 to 8"):
        started_from(_flat(geometry_heads=8), start)
    # a configuration made without keys says no more than where it differs from the default
    assert started_from(TrainingConfig(max_steps=1), start).schedule == "cosine"
    linear = start.replace(process={**DIFFUSION, "schedule": "linear"})
    assert started_from(TrainingConfig(max_steps=1, schedule="cosine"), linear).schedule == "cosine"


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
