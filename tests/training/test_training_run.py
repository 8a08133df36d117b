"""A run learns, writes what it says, goes on after a kill as if nothing had happened, and names what is not finite."""

from __future__ import annotations

import copy
import csv
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from killed import Killed, kill_at

from nucleate.data import Store
from nucleate.errors import CheckpointError, ConfigError, TrainingError
from nucleate.models.checkpoint import load_checkpoint
from nucleate.models.orbit_transformer import OrbitTransformer
from nucleate.processes.choice import ProcessChoice
from nucleate.training.compiling import compile_layers, compiles, has_compiler
from nucleate.training.config import TrainingConfig, config_yaml
from nucleate.training.crystal_stream import load_crystals
from nucleate.training.geometry_task import GeometryTask
from nucleate.training.network_module import NetworkModule
from nucleate.training.recorder import TrainingProgress
from nucleate.training.train import train

Configs = Callable[..., TrainingConfig]


def _weights(path: Path, part: str) -> dict[str, torch.Tensor]:
    network = getattr(load_checkpoint(path), part)
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def _equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_both_parts_are_trained_and_the_folder_says_so(
    store_path: Path, small_config: Configs, tmp_path: Path
) -> None:
    seen: list[TrainingProgress] = []
    report = train(store_path, small_config(), out=tmp_path / "run", on_progress=seen.append)
    assert {name: cost["steps"] for name, cost in report.costs.items()} == {"geometry": 8, "template": 8}
    assert [p.step for p in seen if p.part == "template"] == [2, 4, 6, 8]
    assert seen[0].seconds_left is not None
    checkpoint = load_checkpoint(report.weights)
    assert checkpoint.geometry is not None
    assert checkpoint.template is not None
    assert checkpoint.sources == ("crystals",)
    assert checkpoint.history.data_hash == Store.open(store_path).content_hash
    assert checkpoint.history.training["geometry"]["steps"] in (4, 8)  # of the better validation
    assert checkpoint.history.metrics["geometry_val_loss"] == pytest.approx(
        report.validation["geometry"]["loss"]
    )
    with (tmp_path / "run" / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    steps = [
        int(r["step"]) for r in rows if (r["part"], r["split"], r["quantity"]) == ("geometry", "val", "loss")
    ]
    assert steps == [4, 8]
    assert {r["quantity"] for r in rows if r["part"] == "template" and r["split"] == "val"} >= {
        "composition",
        "nothing",
    }
    assert (tmp_path / "run" / "loss.png").stat().st_size > 10_000
    assert list((tmp_path / "run" / "tensorboard").rglob("events.*"))
    assert json.loads((tmp_path / "run" / "run.json").read_text())["finished"].keys() == {
        "geometry",
        "template",
    }
    # nothing is left to do, so nothing is done
    again = train(store_path, small_config(), out=tmp_path / "run", on_progress=seen.append)
    assert again.costs["geometry"]["steps"] == 8
    assert len(seen) == 8


@pytest.mark.parametrize(("part", "optimiser"), [("geometry", "muon"), ("template", "adamw")])
def test_a_killed_run_goes_on_as_if_it_had_not_been(
    store_path: Path,
    small_config: Configs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    optimiser: str,
) -> None:
    config = small_config(part=part, accumulate=2, curriculum=True, optimiser=optimiser)
    train(store_path, config, out=tmp_path / "whole")
    with monkeypatch.context() as patch:
        kill_at(patch, 6)
        with pytest.raises(Killed):
            train(store_path, config, out=tmp_path / "killed")
    steps: list[int] = []
    report = train(store_path, config, out=tmp_path / "killed", on_progress=lambda p: steps.append(p.step))
    assert steps == [6, 8]  # from the checkpoint of step 4 on
    assert report.costs[part]["steps"] == 8
    assert _equal(_weights(tmp_path / "whole" / "weights.safetensors", part), _weights(report.weights, part))

    def losses(folder: str) -> list[tuple[str, ...]]:
        with (tmp_path / folder / "metrics.csv").open() as stream:
            rows = [r for r in csv.DictReader(stream) if r["quantity"] != "crystals_per_second"]
        return [(r["step"], r["split"], r["quantity"], r["value"]) for r in rows]

    assert losses("killed") == losses("whole")


def test_another_seed_gives_other_weights(store_path: Path, small_config: Configs, tmp_path: Path) -> None:
    a, b = (
        train(store_path, small_config(part="geometry", max_steps=2, seed=seed), out=tmp_path / str(seed))
        for seed in (0, 1)
    )
    assert not _equal(_weights(a.weights, "geometry"), _weights(b.weights, "geometry"))


def test_training_lowers_the_loss(store_path: Path, small_config: Configs, tmp_path: Path) -> None:
    config = small_config(part="template", max_steps=60, validate_every=20, learning_rate=1e-2, ema_decay=0.9)
    report = train(store_path, config, out=tmp_path / "run")
    with (tmp_path / "run" / "metrics.csv").open() as stream:
        rows = [r for r in csv.DictReader(stream) if r["split"] == "train" and r["quantity"] == "loss"]
    assert float(rows[-1]["value"]) < 0.8 * float(rows[0]["value"])
    assert report.validation["template"]["composition"] < report.validation["template"]["nothing"]


def test_initial_weights_are_where_training_starts_and_the_other_part_stays(
    store_path: Path, small_config: Configs, tmp_path: Path
) -> None:
    first = train(store_path, small_config(max_steps=2), out=tmp_path / "first")
    config = small_config(part="template", max_steps=2, geometry=TrainingConfig(max_steps=1).geometry)
    second = train(store_path, config, out=tmp_path / "second", init=first.weights)
    assert _equal(_weights(first.weights, "geometry"), _weights(second.weights, "geometry"))
    assert not _equal(_weights(first.weights, "template"), _weights(second.weights, "template"))
    checkpoint = load_checkpoint(second.weights)
    assert torch.equal(checkpoint.lattice_mean, load_checkpoint(first.weights).lattice_mean)
    assert checkpoint.history.initial_weights == "weights.safetensors"
    firmer = small_config(part="template", max_steps=3, template=replace(config.template, dropout=0.2))
    third = load_checkpoint(
        train(store_path, firmer, out=tmp_path / "firmer", init=second.weights).weights
    ).template
    assert third is not None
    assert third.config == firmer.template  # dropout has no weights that it would have to fit
    other = replace(small_config().template, width=32)
    with pytest.raises(CheckpointError, match="width from 16 to 32"):
        train(store_path, small_config(template=other), out=tmp_path / "third", init=first.weights)


def test_parts_that_the_initial_weights_lack_are_added_unless_switched_off(
    store_path: Path, small_config: Configs, tmp_path: Path
) -> None:
    sizes = small_config().template
    without = replace(sizes, charge_balance=False)
    first = train(store_path, small_config(max_steps=2, template=without), out=tmp_path / "first")
    for name, asked in (("given", sizes), ("off", without)):
        config = small_config(part="template", max_steps=2, template=asked)
        report = train(store_path, config, out=tmp_path / name, init=first.weights)
        network = load_checkpoint(report.weights).template
        assert network is not None
        assert network.config == asked
    other_part = small_config(part="geometry", max_steps=2)
    kept = load_checkpoint(
        train(store_path, other_part, out=tmp_path / "geometry", init=first.weights).weights
    )
    assert kept.template is not None
    assert kept.template.config == without


def test_a_larger_geometry_network_grows_out_of_the_initial_weights(
    store_path: Path, small_config: Configs, tmp_path: Path
) -> None:
    first = train(store_path, small_config(part="geometry", max_steps=2), out=tmp_path / "first")
    sizes = small_config().geometry
    larger = replace(sizes, layers=sizes.layers + 1, tensors=2 * sizes.heads)
    second = train(
        store_path,
        small_config(part="geometry", max_steps=2, geometry=larger),
        out=tmp_path / "second",
        init=first.weights,
    )
    network = load_checkpoint(second.weights).geometry
    assert network is not None
    assert network.config == larger
    before = first.validation["geometry"]["loss"]
    assert second.validation["geometry"]["loss"] == pytest.approx(before, rel=0.1)  # it did not start afresh
    with pytest.raises(CheckpointError, match="change scalars"):
        train(
            store_path,
            small_config(part="geometry", geometry=replace(sizes, scalars=2 * sizes.scalars)),
            out=tmp_path / "third",
            init=first.weights,
        )


def test_a_weak_network_joins_the_weights_and_changes_nothing_else(
    store_path: Path, small_config: Configs, tmp_path: Path
) -> None:
    smaller = replace(small_config().geometry, hidden=8)
    config = small_config(part="weak", max_steps=2, weak=smaller)
    with pytest.raises(ConfigError, match="name them with --init"):
        train(store_path, config, out=tmp_path / "alone")
    first = train(store_path, small_config(max_steps=2), out=tmp_path / "first")
    second = train(store_path, config, out=tmp_path / "second", init=first.weights)
    before, after = load_checkpoint(first.weights), load_checkpoint(second.weights)
    assert after.weak is not None
    assert after.weak.config == smaller
    for part in ("geometry", "template"):
        assert _equal(_weights(first.weights, part), _weights(second.weights, part))
    assert torch.equal(after.lattice_std, before.lattice_std)
    assert {name: table.tolist() for name, table in after.process_tables.items()} == {
        name: table.tolist() for name, table in before.process_tables.items()
    }
    assert after.history.training["weak"]["steps"] == 2
    # it goes on from there, and stays where another part is trained
    third = train(store_path, config, out=tmp_path / "third", init=second.weights)
    assert not _equal(_weights(second.weights, "weak"), _weights(third.weights, "weak"))
    fourth = train(
        store_path, small_config(part="geometry", max_steps=2), out=tmp_path / "fourth", init=third.weights
    )
    assert _equal(_weights(third.weights, "weak"), _weights(fourth.weights, "weak"))


def test_physics_penalties_are_recorded_and_change_the_weights(
    store_path: Path, small_config: Configs, tmp_path: Path
) -> None:
    plain = train(store_path, small_config(part="geometry", max_steps=4), out=tmp_path / "plain")
    config = small_config(
        part="geometry",
        max_steps=4,
        distance_weight=1.0,
        volume_weight=0.1,
        density_weight=0.1,
        energy_weight=0.1,
        bond_valence_weight=0.1,
    )
    helped = train(store_path, config, out=tmp_path / "helped")
    with (tmp_path / "helped" / "metrics.csv").open() as stream:
        values = {r["quantity"]: float(r["value"]) for r in csv.DictReader(stream) if r["split"] == "train"}
    assert values.keys() >= {"distance", "volume", "density", "bond_valence", "energy"}
    assert np.isfinite(list(values.values())).all()
    assert not _equal(_weights(plain.weights, "geometry"), _weights(helped.weights, "geometry"))


def test_a_diffusion_with_all_that_is_learned_beside_it_goes_on_after_a_kill(
    store_path: Path, small_config: Configs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Learned schedule, learned variance and property head are in the weights, and resume to the bit."""
    config = small_config(
        part="geometry",
        process="diffusion",
        schedule="learned",
        solver="sde",
        properties=("band_gap",),
        element_share=0.3,
    )
    train(store_path, config, out=tmp_path / "whole")
    with monkeypatch.context() as patch:
        kill_at(patch, 6)
        with pytest.raises(Killed):
            train(store_path, config, out=tmp_path / "killed")
    train(store_path, config, out=tmp_path / "killed")
    whole, killed = (load_checkpoint(tmp_path / name / "weights.safetensors") for name in ("whole", "killed"))
    assert whole.process == {"kind": "diffusion", "schedule": "learned", "solver": "sde"}
    assert whole.process_tables.keys() == {
        "loss.sums", "loss.weights", "lattice_error.sums", "lattice_error.weights"
    }  # fmt: skip
    for name, table in whole.process_tables.items():
        assert torch.equal(table, killed.process_tables[name])
    assert whole.properties is not None
    assert whole.properties.config.names == ("band_gap",)
    assert 0 < whole.properties.config.means[0] < 4
    for mine, theirs in zip(whole.properties.parameters(), killed.properties.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    with (tmp_path / "whole" / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {r["quantity"] for r in rows if r["split"] == "sample"} == {"valid", "overlap", "volume_error"}
    assert {r["quantity"] for r in rows if r["split"] == "val"} >= {"property", "mae_band_gap", "element"}
    assert (tmp_path / "whole" / "samples.png").stat().st_size > 5_000
    # going on from there keeps the head and the process, and another process is refused
    more = small_config(
        part="geometry", process="diffusion", max_steps=1, properties=("band_gap",), schedule="cosine"
    )
    tuned = train(store_path, more, out=tmp_path / "tuned", init=tmp_path / "whole" / "weights.safetensors")
    assert load_checkpoint(tuned.weights).process["schedule"] == "cosine"
    with pytest.raises(ConfigError, match="trained with process: diffusion, asked is flow"):
        train(
            store_path,
            replace(small_config(part="geometry"), given=frozenset({"process"})),
            out=tmp_path / "flow",
            init=tmp_path / "whole" / "weights.safetensors",
        )
    with pytest.raises(ConfigError, match=r"no numeric property 'gap'; it has .*band_gap"):
        train(store_path, small_config(part="geometry", properties=("gap",)), out=tmp_path / "none")


def test_the_curriculum_begins_with_little_noise(store: Store, small_config: Configs) -> None:
    """Noise grows from three tenths to all of it over the curriculum's share of the budget, and crystals get harder."""
    choice = ProcessChoice.fit(
        load_crystals(store.split("train"), {}).crystals, kind="flow", schedule="linear", solver="ddim"
    )
    config = small_config(part="geometry", curriculum=True, curriculum_share=0.5, max_steps=10)
    module = NetworkModule(
        OrbitTransformer(config.geometry), lambda _: GeometryTask(choice), config, part="geometry"
    )
    seen = []
    for fraction in (0.0, 0.25, 0.5, 1.0):
        module._fraction = fraction
        seen.append((round(module.growth, 6), round(module.ceiling(), 6)))
    assert seen == [(0.0, 0.1), (0.5, 0.55), (1.0, 1.0), (1.0, 1.0)]
    plain = NetworkModule(
        OrbitTransformer(config.geometry),
        lambda _: GeometryTask(choice),
        replace(config, curriculum=False),
        part="geometry",
    )
    assert (plain.growth, plain.ceiling()) == (1.0, 1.0)


def test_compiling_leaves_state_and_copies_those_of_the_plain_network(
    small_config: Configs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compiler itself runs in benchmarks/training_throughput.py: the shape checks of these tests are in its way."""
    network = OrbitTransformer(small_config().geometry)
    names = list(network.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the compiler, about itself
        compile_layers(network)
    assert list(network.state_dict()) == names
    copied = copy.deepcopy(network)
    assert network.layers[0]._compiled_call_impl is not None
    assert copied.layers[0]._compiled_call_impl is None
    assert compiles("on", "cpu")
    assert not compiles("off", "cpu")
    assert compiles("auto", "cpu") == has_compiler("cpu")
    assert not compiles("auto", "cpu", minutes=5.0), (
        "building kernels takes longer than a short training gains"
    )
    assert not compiles("auto", "cpu", max_steps=100)
    assert compiles("on", "cpu", minutes=5.0)
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert not compiles("auto", "cpu")


def test_a_folder_of_another_run_is_refused(store_path: Path, small_config: Configs, tmp_path: Path) -> None:
    train(store_path, small_config(part="template", max_steps=2), out=tmp_path / "run")
    # a run from before a setting was there goes on with its default
    state = json.loads((tmp_path / "run" / "run.json").read_text())
    del state["config"]["weak_layers"]
    (tmp_path / "run" / "run.json").write_text(json.dumps(state))
    train(store_path, small_config(part="template", max_steps=2), out=tmp_path / "run")
    with pytest.raises(TrainingError, match=r"learning_rate 0\.001 there, 0\.01 asked"):
        train(
            store_path, small_config(part="template", max_steps=2, learning_rate=0.01), out=tmp_path / "run"
        )
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(TrainingError, match=r"is not empty and holds no training run \(thesis.txt\)"):
        train(store_path, small_config(), out=tmp_path / "mine")


BARE = """
import importlib.abc, importlib.metadata, importlib.util, sys

BLOCKED = {"moyopy", "pymatgen", "gemmi", "ase", "pydantic", "typer", "rich", "scipy", "jaxtyping", "matplotlib"}

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

# Lightning asks which libraries are installed before it imports them: they must look absent, not broken.
find_spec, from_name = importlib.util.find_spec, importlib.metadata.Distribution.from_name.__func__

def looked_up(cls, name):
    if name.split("-")[0].lower() in BLOCKED:
        raise importlib.metadata.PackageNotFoundError(name)
    return from_name(cls, name)

importlib.metadata.Distribution.from_name = classmethod(looked_up)
importlib.util.find_spec = lambda name, *rest: None if name.split(".")[0] in BLOCKED else find_spec(name, *rest)
sys.meta_path.insert(0, Blocker())
from nucleate.training.config import read_config
from nucleate.training.train import train
report = train(sys.argv[1], read_config(sys.argv[2]), out=sys.argv[3])
print("trained", *report.costs)
"""


def test_training_works_on_a_bare_machine(store_path: Path, small_config: Configs, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(config_yaml(small_config(max_steps=1)))
    arguments = [str(store_path), str(tmp_path / "config.yaml"), str(tmp_path / "run")]
    result = subprocess.run(
        [sys.executable, "-c", BARE, *arguments], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["trained", "geometry", "template"]
    assert not (tmp_path / "run" / "loss.png").exists()
