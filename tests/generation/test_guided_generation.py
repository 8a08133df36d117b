"""Guidance and process come from outside: weights say what samples them, guidance moves geometry only."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from nucleate.errors import ConfigError
from nucleate.generation.condition import Condition
from nucleate.generation.generator import GUIDANCE, Generator, load
from nucleate.models.checkpoint import load_checkpoint
from nucleate.processes.joint_process import GivenParts
from nucleate.processes.level_table import LevelTable
from nucleate.processes.template_constraints import template_constraint

STEPS = 4


def test_guidance_changes_geometry_and_nothing_else(generator: Generator) -> None:
    condition = Condition(formula="SrTiO3", num_atoms=(5, 10))
    plain = generator.generate(condition, 4, 0, steps=STEPS, guidance={})
    guided = generator.generate(condition, 4, 0, steps=STEPS, guidance={"distance": 20.0, "volume": 0.1})
    again = generator.generate(condition, 4, 0, steps=STEPS, guidance={"distance": 20.0, "volume": 0.1})
    for a, b, c in zip(plain, guided, again, strict=True):
        assert a.space_group_number == b.space_group_number
        np.testing.assert_array_equal(a.wyckoff_indices, b.wyckoff_indices)
        np.testing.assert_array_equal(b.lattice_params, c.lattice_params)
    assert any(
        not np.allclose(a.lattice_params, b.lattice_params) for a, b in zip(plain, guided, strict=True)
    )
    with pytest.raises(ConfigError, match=r"no guidance 'sympathy': it is distance, .* module:function"):
        generator.generate(condition, 1, 0, steps=STEPS, guidance={"sympathy": 1.0})


def test_atoms_are_kept_apart_unless_that_is_switched_off(generator: Generator, tmp_path: Path) -> None:
    condition = Condition(formula="SrTiO3", num_atoms=(5, 10))
    usual = generator.generate(condition, 2, 0, steps=STEPS, out=tmp_path / "run")
    asked = generator.generate(condition, 2, 0, steps=STEPS, guidance=GUIDANCE)
    for a, b in zip(usual, asked, strict=True):
        np.testing.assert_array_equal(a.lattice_params, b.lattice_params)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["asked"]["guidance"] == dict(GUIDANCE)
    without = generator.generate(condition, 2, 0, steps=STEPS, guidance={})
    assert any(
        not np.array_equal(a.lattice_params, b.lattice_params) for a, b in zip(usual, without, strict=True)
    )


@pytest.mark.parametrize("solver", ["multistep", "sde"])
def test_weights_of_a_diffusion_are_sampled_as_one(weights, tmp_path, solver: str) -> None:
    table = LevelTable(6)
    table.sums += 0.01
    table.weights += 1.0
    checkpoint = load_checkpoint(weights).replace(
        process={"kind": "diffusion", "schedule": "cosine", "solver": solver},
        process_tables={f"lattice_error.{name}": value for name, value in table.state_dict().items()},
    )
    generator = Generator(checkpoint)
    assert generator.choice.process.kind == "diffusion"
    assert generator.choice.lattice_variance is not None
    condition = Condition(space_groups=(136, 62), num_atoms=(4, 12))
    together = generator.generate(condition, 3, 5, steps=STEPS)
    alone = generator.generate(condition, 3, 5, steps=STEPS, batch_size=1)
    flow = load(weights).generate(condition, 3, 5, steps=STEPS)
    for a, b, c in zip(together, alone, flow, strict=True):
        np.testing.assert_allclose(a.free_coords, b.free_coords, atol=1e-3)
        np.testing.assert_array_equal(a.wyckoff_indices, c.wyckoff_indices)
        assert np.isfinite(a.lattice_params).all()
    assert any(
        not np.allclose(a.lattice_params, c.lattice_params) for a, c in zip(together, flow, strict=True)
    )
    assert torch.is_tensor(generator.choice.loss_table.sums)


def test_all_fields_are_joined_where_the_networks_are(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator, "device", torch.device("cuda:1"))
    assert generator.joint_process().device == torch.device("cuda:1")


def test_completion_and_substitution_with_the_same_weights(generator: Generator) -> None:
    """A titanium orbit of rutile given, the rest wanted; then its geometry given and the elements wanted."""
    params, oxygen = np.array([1.45, -0.3]), np.array([0.305, 0, 0])
    some = template_constraint(space_groups=[136], orbits=[(5, 8)], composition={22: 2, 8: 4})
    all_positions = template_constraint(space_groups=[136], orbits=[(0, None), (5, None)], complete=True)
    parts = [GivenParts(None, (oxygen,)), GivenParts(params, (np.zeros(3), oxygen))]
    streams = [np.random.default_rng([3, i]) for i in range(2)]
    made = generator.joint_process().sample([some, all_positions], parts, streams, steps=3, proposals=3)
    completed, substituted = made.crystals.to_crystals()
    assert completed.composition == {22: 2, 8: 4}
    np.testing.assert_array_equal(completed.free_coords[0], oxygen)
    np.testing.assert_array_equal(substituted.free_coords[1], oxygen)
    np.testing.assert_array_equal(substituted.lattice_params, params)
