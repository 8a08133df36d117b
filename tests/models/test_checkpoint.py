"""Checkpoints: the same networks come back, and nothing else is let in."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from nucleate.crystal import Crystal, CrystalBatch
from nucleate.errors import CheckpointError
from nucleate.models.checkpoint import (
    FORMAT_VERSION,
    Checkpoint,
    History,
    load_checkpoint,
    read_metadata,
    save_checkpoint,
)
from nucleate.models.orbit_transformer import NoisyCrystals, OrbitTransformer, OrbitTransformerConfig
from nucleate.models.property_head import PropertyHead, PropertyHeadConfig
from nucleate.models.template_transformer import TemplateTransformer, TemplateTransformerConfig


@pytest.fixture
def checkpoint() -> Checkpoint:
    torch.manual_seed(0)
    return Checkpoint(
        geometry=OrbitTransformer(
            OrbitTransformerConfig(scalars=16, vectors=4, hidden=16, layers=1, heads=2)
        ),
        template=TemplateTransformer(TemplateTransformerConfig(width=16, layers=1, heads=2)),
        lattice_mean=torch.linspace(0, 1, 6),
        lattice_std=torch.linspace(1, 2, 6),
        sources=("mp_20", "wbm"),
        history=History(
            data_hash="abc",
            seed=4,
            training={"geometry": {"steps": 3}},
            metrics={"loss": 0.5},
            attribution=("x: CC",),
        ),
    )


def _metadata(path: Path) -> dict:
    with safe_open(path, framework="pt") as stream:
        return json.loads(stream.metadata()["nucleate"])


def _rewrite(path: Path, change) -> None:
    """The file with its header and tensors changed."""
    metadata, tensors = _metadata(path), load_file(path)
    change(metadata, tensors)
    save_file(tensors, path, metadata={"nucleate": json.dumps(metadata)})


def test_everything_comes_back(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "new" / "w.safetensors", checkpoint, precision="float32")
    back = load_checkpoint(path)
    for part in ("geometry", "template"):
        before, after = getattr(checkpoint, part), getattr(back, part)
        assert after.config == before.config
        assert not after.training
        for name, tensor in before.state_dict().items():
            assert torch.equal(after.state_dict()[name], tensor), name
    assert torch.equal(back.lattice_mean, checkpoint.lattice_mean)
    assert back.sources == ("mp_20", "wbm")
    assert back.history == checkpoint.history
    assert back.versions.keys() == {"nucleate", "torch"}
    assert read_metadata(path)["format_version"] == FORMAT_VERSION
    assert [p.name for p in path.parent.iterdir()] == ["w.safetensors"]


def test_a_checkpoint_of_format_1_is_that_of_the_flow() -> None:
    path = Path(__file__).parent / "checkpoints" / "format_1.safetensors"
    assert _metadata(path)["format_version"] == 1
    assert "process" not in _metadata(path)
    checkpoint = load_checkpoint(path)
    assert checkpoint.geometry is not None
    assert checkpoint.geometry.config.scalars == 4
    assert checkpoint.process == {"kind": "flow", "schedule": "linear", "solver": "ddim"}
    assert checkpoint.sources == ("mp_20",)
    assert read_metadata(path)["format_version"] == FORMAT_VERSION


def test_weights_of_before_element_reuse_have_none(checkpoint: Checkpoint, tmp_path: Path) -> None:
    assert checkpoint.template is not None
    old = TemplateTransformer(replace(checkpoint.template.config, element_reuse=False))
    path = save_checkpoint(tmp_path / "w.safetensors", checkpoint.replace(template=old))
    _rewrite(path, lambda metadata, tensors: metadata["networks"]["template"].pop("element_reuse"))
    back = load_checkpoint(path)
    assert back.template is not None
    assert back.template.config == old.config


def test_process_and_property_head_come_back(checkpoint: Checkpoint, tmp_path: Path) -> None:
    config = PropertyHeadConfig(16, ("band_gap", "energy"), ("eV", "eV/atom"), (1.5, -2.0), (0.5, 1.0))
    tables = {"schedule.sums": torch.rand(4, 1), "lattice_error.weights": torch.rand(4, 6)}
    process = {"kind": "diffusion", "schedule": "learned", "solver": "sde"}
    whole = checkpoint.replace(properties=PropertyHead(config).eval(), process=process, process_tables=tables)
    back = load_checkpoint(save_checkpoint(tmp_path / "w.safetensors", whole, precision="float32"))
    assert back.process == process
    assert back.process_tables.keys() == tables.keys()
    assert torch.equal(back.process_tables["schedule.sums"], tables["schedule.sums"])
    assert back.properties is not None
    assert back.properties.config == config
    pooled = torch.randn(3, 16)
    assert torch.equal(back.properties(pooled), whole.properties(pooled))
    assert back.properties.means.tolist() == [1.5, -2.0]


@pytest.mark.parametrize(("precision", "error"), [("float16", 1e-3), ("bfloat16", 8e-3)])
def test_half_precision_changes_weights_and_outputs_little(
    checkpoint: Checkpoint, tmp_path: Path, precision: str, error: float
) -> None:
    full = save_checkpoint(tmp_path / "full.safetensors", checkpoint, precision="float32")
    half = save_checkpoint(tmp_path / "half.safetensors", checkpoint, precision=precision)
    assert half.stat().st_size < 0.75 * full.stat().st_size  # tables and statistics stay float32
    a, b = load_checkpoint(full), load_checkpoint(half)
    for name, tensor in a.geometry.state_dict().items():
        assert torch.allclose(b.geometry.state_dict()[name], tensor, rtol=error, atol=1e-6)
    rutile = Crystal(
        136,
        torch.tensor([1.4, -0.5], dtype=torch.float64).numpy(),
        torch.tensor([0, 5]).numpy(),
        torch.tensor([22, 8]).numpy(),
        torch.tensor([[0.0, 0, 0], [0.305, 0, 0]], dtype=torch.float64).numpy(),
    )
    batch = CrystalBatch.from_crystals([rutile], dtype=torch.float32)
    time = torch.full((1,), 0.5)
    seen = NoisyCrystals(batch, time, time, torch.zeros(1, dtype=torch.int64))
    with torch.no_grad():
        assert torch.allclose(
            a.geometry(seen).lattice_params, b.geometry(seen).lattice_params, atol=10 * error
        )
    assert torch.equal(a.lattice_std, b.lattice_std)


def test_one_part_alone_is_a_checkpoint(checkpoint: Checkpoint, tmp_path: Path) -> None:
    back = load_checkpoint(save_checkpoint(tmp_path / "t.safetensors", checkpoint.replace(geometry=None)))
    assert back.geometry is None
    assert back.lattice_mean is None
    assert back.template is not None
    with pytest.raises(CheckpointError, match="got neither"):
        save_checkpoint(tmp_path / "n.safetensors", Checkpoint())
    with pytest.raises(CheckpointError, match="lattice_mean and lattice_std"):
        save_checkpoint(tmp_path / "n.safetensors", checkpoint.replace(lattice_mean=None))


@pytest.mark.parametrize("value", [float("nan"), 1e6])
def test_weights_that_are_not_finite_are_not_written(
    checkpoint: Checkpoint, tmp_path: Path, value: float
) -> None:
    with torch.no_grad():
        checkpoint.geometry.norm.weight[0] = value
    with pytest.raises(
        CheckpointError, match=r"geometry\.norm\.weight has values that are not finite in float16"
    ):
        save_checkpoint(tmp_path / "w.safetensors", checkpoint)
    assert not list(tmp_path.iterdir())


def _version(number: int):
    return lambda metadata, tensors: metadata.update(format_version=number)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_version(FORMAT_VERSION + 1), "format version 3, this nucleate reads 2: update nucleate"),
        (_version(0), "format version 0, this nucleate reads 2: train the weights again"),
        (lambda m, t: m.update(colour="red"), r"entries this nucleate does not know \(colour\)"),
        (lambda m, t: m["history"].update(mood="good"), r"history of .* does not know \(mood\)"),
        (
            lambda m, t: m["networks"]["geometry"].update(wings=2),
            r"geometry network of .* does not know \(wings\)",
        ),
        (lambda m, t: m["networks"].update(oracle={}), "a network 'oracle' this nucleate does not know"),
        (lambda m, t: m.pop("sources"), "sources missing"),
        (lambda m, t: m.update(format="other"), "holds no nucleate weights"),
        (
            lambda m, t: t.pop("geometry.norm.weight"),
            r"geometry\.norm\.weight is missing, expected shape \(16,\)",
        ),
        (lambda m, t: t.update(extra=torch.zeros(1)), "1 tensors that belong nowhere, such as extra"),
        (lambda m, t: m["networks"]["geometry"].update(scalars=8), "expected shape"),
        (lambda m, t: t["tables.geometry.element_table"].add_(1), "trained with another element_table"),
        (lambda m, t: t.pop("lattice_std"), "lattice_std is missing"),
    ],
)
def test_what_does_not_fit_is_refused(checkpoint: Checkpoint, tmp_path: Path, change, message: str) -> None:
    path = save_checkpoint(tmp_path / "w.safetensors", checkpoint)
    _rewrite(path, change)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)


def test_a_table_that_differs_by_rounding_is_let_in(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "w.safetensors", checkpoint)
    _rewrite(path, lambda m, t: t["tables.geometry.element_table"].add_(1e-5))
    load_checkpoint(path)


def test_damage_and_pickles_are_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "w.safetensors", checkpoint)
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:-100])
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps({"weights": 1}))
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    for name, message in (
        ("cut.safetensors", "cannot be read as safetensors"),
        ("pickle.pt", "cannot be read as safetensors"),
        ("other.safetensors", "holds no nucleate weights"),
        ("absent.safetensors", "There are no weights at"),
    ):
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(tmp_path / name)
