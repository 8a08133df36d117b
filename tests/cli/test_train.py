"""``nucleate train``: a store in, weights out, from options and from a YAML file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ase.build import bulk
from ase.io import write
from typer.testing import CliRunner

from nucleate.cli.app import app
from nucleate.data import build_store
from nucleate.models.checkpoint import default_weights, load_checkpoint

SMALL = """
batch_size: 4
validate_every: 2
log_every: 1
precision: 32-true
accelerator: cpu
compile: off
geometry_scalars: 16
geometry_vectors: 4
geometry_hidden: 16
geometry_layers: 1
geometry_heads: 2
template_width: 16
template_layers: 1
template_heads: 2
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("metals")
    for symbol in ("Cu", "Fe", "Al", "Mg", "Ti", "Ag", "W", "Zn"):
        write(folder / f"{symbol}.cif", bulk(symbol), format="cif")
    lines = [
        f"{symbol},{number}" for number, symbol in enumerate(("Cu", "Fe", "Al", "Mg", "Ti", "Ag", "W", "Zn"))
    ]
    (folder / "hardness.csv").write_text("\n".join(["id,hardness (GPa)", *lines]))
    build_store(
        folder,
        folder / "store",
        fractions=(0.75, 0.25, 0.0),
        properties_table=folder / "hardness.csv",
    )
    return folder / "store"


def _run(*arguments: object):
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


def test_weights_of_both_networks_are_written(store: Path, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    result = _run(
        store, "--config", tmp_path / "small.yaml", "--max-steps", 2, "--seed", 5, "--out", tmp_path / "run"
    )
    assert result.exit_code == 0, result.output
    text = " ".join(result.stdout.split())
    assert "geometry: 2 steps" in text
    assert "template: 2 steps" in text
    checkpoint = load_checkpoint(tmp_path / "run" / "weights.safetensors")
    assert checkpoint.geometry is not None
    assert checkpoint.template is not None
    assert checkpoint.history.seed == 5
    # fine-tuning one part from there
    weights = tmp_path / "run" / "weights.safetensors"
    options = ["--part", "template", "--max-steps", 1, "--init", weights, "--out", tmp_path / "tuned"]
    result = _run(store, "--config", tmp_path / "small.yaml", *options)
    assert result.exit_code == 0, result.output
    assert load_checkpoint(tmp_path / "tuned" / "weights.safetensors").geometry is not None


def test_the_weights_of_the_package_are_tuned_by_name(store: Path, tmp_path: Path) -> None:
    options = ["--part", "template", "--max-steps", 1, "--init", "shipped", "--out", tmp_path / "tuned"]
    result = _run(store, *options)
    assert result.exit_code == 0, result.output
    tuned, shipped = (
        load_checkpoint(tmp_path / "tuned" / "weights.safetensors"),
        load_checkpoint(default_weights()),
    )
    assert shipped.geometry is not None
    assert tuned.geometry is not None
    for name, values in shipped.geometry.state_dict().items():
        assert torch.equal(tuned.geometry.state_dict()[name], values), name
    result = _run(store, "--max-steps", 1, "--init", "./shipped", "--out", tmp_path / "other")
    assert result.exit_code == 1
    assert "There are no weights at" in " ".join(result.stderr.split())


def test_a_property_head_is_added(store: Path, tmp_path: Path) -> None:
    options = ["--part", "properties", "--properties", "hardness", "--max-steps", 2, "--init", "shipped"]
    result = _run(store, *options, "--out", tmp_path / "read")
    assert result.exit_code == 0, result.output
    assert "properties: 2 steps" in " ".join(result.stdout.split())
    head = load_checkpoint(tmp_path / "read" / "weights.safetensors").properties
    assert head is not None
    assert (head.config.names, head.config.units) == (("hardness",), ("GPa",))
    result = _run(store, *options[:2], "--max-steps", 1, "--init", "shipped", "--out", tmp_path / "none")
    assert result.exit_code == 1
    assert "name numeric properties of the store" in " ".join(result.stderr.split())


def test_what_cannot_be_is_refused(store: Path, tmp_path: Path) -> None:
    (tmp_path / "typo.yaml").write_text("learning_rat: 1.0\n")
    result = _run(store, "--config", tmp_path / "typo.yaml", "--max-steps", 1, "--out", tmp_path / "run")
    assert result.exit_code == 1
    assert "the nearest known one is 'learning_rate'" in " ".join(result.stderr.split())
    result = _run(tmp_path / "nowhere", "--max-steps", 1, "--out", tmp_path / "run")
    assert result.exit_code == 1
    assert "There is no store at" in " ".join(result.stderr.split())
    assert not (tmp_path / "run").exists()
