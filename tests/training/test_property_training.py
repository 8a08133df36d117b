"""Part ``properties``: a head on a geometry network that stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from killed import Killed, kill_at

from nucleate.data import Store
from nucleate.errors import ConfigError
from nucleate.models.checkpoint import Checkpoint, load_checkpoint
from nucleate.models.orbit_transformer import OrbitTransformerConfig
from nucleate.models.property_head import RunningScale
from nucleate.models.template_transformer import TemplateTransformerConfig
from nucleate.prediction import PropertyReader
from nucleate.training.config import TrainingConfig
from nucleate.training.crystal_stream import load_crystals
from nucleate.training.property_task import FrozenFeatures, labelled
from nucleate.training.train import train

Config = Callable[..., TrainingConfig]
GAPS = {"part": "properties", "properties": ("band_gap",), "property_hidden": 16}


@pytest.fixture(scope="module")
def start(store_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of both networks, hardly trained."""
    config = TrainingConfig(
        max_steps=2,
        batch_size=8,
        sample_crystals=0,
        precision="32-true",
        compile="off",
        geometry=OrbitTransformerConfig(scalars=16, vectors=4, hidden=16, layers=1, heads=2, num_basis=8),
        template=TemplateTransformerConfig(width=16, layers=1, heads=2),
    )
    return train(store_path, config, out=tmp_path_factory.mktemp("start")).weights


def _tensors(checkpoint: Checkpoint, part: str) -> list[torch.Tensor]:
    return list(getattr(checkpoint, part).state_dict().values())


def test_a_head_is_added_and_the_networks_stay(
    store_path: Path, store: Store, start: Path, small_config: Config, tmp_path: Path
) -> None:
    config = small_config(**GAPS, max_steps=300, learning_rate=1e-2, validate_every=100)
    report = train(store_path, config, out=tmp_path / "run", init=start)
    before, after = load_checkpoint(start), load_checkpoint(report.weights)
    for part in ("geometry", "template"):
        for one, other in zip(_tensors(before, part), _tensors(after, part), strict=True):
            assert torch.equal(one, other)
    assert after.history.data_hash == before.history.data_hash
    assert after.history.training["properties"]["train_crystals"] == len(
        labelled(store.split("train"), ("band_gap",))
    )
    assert set(report.validation["properties"]) == {"loss", "mae_band_gap"}

    reader = PropertyReader.load(report.weights)
    known = labelled(store.split("train"), ("band_gap",))
    true = load_crystals(known, {}, ("band_gap",)).labels[:, 0].numpy()  # type: ignore[index]
    said = reader.predict([record.crystal for record in known])["band_gap"]
    # labels are made up, so that only learning by heart finds them
    assert np.abs(said - true).mean() < 0.6 * np.abs(true - np.median(true)).mean()


def test_crystals_without_a_label_are_left_out(store: Store) -> None:
    everything = load_crystals(store.split("train"), {}, ("band_gap",)).labels
    kept = load_crystals(labelled(store.split("train"), ("band_gap",)), {}, ("band_gap",)).labels
    assert everything is not None
    assert kept is not None
    assert torch.isfinite(kept).all()
    assert len(kept) == int(torch.isfinite(everything).sum()) < len(everything)


def test_features_are_those_of_the_network_whatever_comes_with_a_crystal(
    store: Store, start: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = load_crystals(store.split("train"), {})
    network = load_checkpoint(start).geometry
    assert network is not None
    features = FrozenFeatures(network, len(store))
    some = features.of(content.take(torch.tensor([5, 2, 9])))
    whole = features.of(content)
    torch.testing.assert_close(whole[[5, 2, 9]], some)
    torch.testing.assert_close(FrozenFeatures(network, 10**9).of(content), whole, rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(FrozenFeatures, "_computed", lambda *_: pytest.fail("computed twice"))
    assert torch.equal(features.of(content), whole)


def test_a_stopped_run_goes_on_to_the_bit(
    store_path: Path,
    start: Path,
    small_config: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = small_config(**GAPS)
    whole = train(store_path, config, out=tmp_path / "whole", init=start).weights
    with monkeypatch.context() as patch:
        kill_at(patch, 6)
        with pytest.raises(Killed):
            train(store_path, config, out=tmp_path / "killed", init=start)
    killed = train(store_path, config, out=tmp_path / "killed", init=start).weights
    heads = (_tensors(load_checkpoint(path), "properties") for path in (whole, killed))
    for one, other in zip(*heads, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("changes", "with_start", "message"),
    [
        ({"properties": ()}, True, "needs to know what to read: name numeric properties"),
        ({}, False, "reads a geometry network: name weights that hold one with --init"),
        ({"properties": ("gap",)}, True, "no numeric property 'gap'; it has .*band_gap"),
    ],
)
def test_what_cannot_be_learned_is_refused(
    changes: dict[str, tuple[str, ...]],
    with_start: bool,
    message: str,
    store_path: Path,
    start: Path,
    small_config: Config,
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(
            store_path,
            small_config(**{**GAPS, **changes}),
            out=tmp_path / "run",
            init=start if with_start else None,
        )


def test_a_head_of_other_sizes_or_properties_begins_anew(
    store_path: Path, start: Path, small_config: Config, tmp_path: Path
) -> None:
    first = train(store_path, small_config(**GAPS), out=tmp_path / "first", init=start).weights
    wide = train(
        store_path,
        small_config(**{**GAPS, "property_hidden": 24}, max_steps=1),
        out=tmp_path / "wide",
        init=first,
    ).weights
    head = load_checkpoint(wide).properties
    assert head is not None
    assert head.config.hidden == 24


def test_features_are_scaled_by_what_training_has_seen(rng: np.random.Generator) -> None:
    """As the mean and spread over all say; a single crystal and one that is not finite change nothing."""
    scale = RunningScale(3)
    features = torch.as_tensor(rng.normal([5.0, -2.0, 0.3], [0.02, 3.0, 0.5], (4000, 3)), dtype=torch.float32)
    for batch in features.split(50):
        scale(batch)
    scale.eval()
    scaled = scale(features)
    torch.testing.assert_close(scaled.mean(dim=0), torch.zeros(3), atol=0.05, rtol=0)
    torch.testing.assert_close(scaled.std(dim=0), torch.ones(3), atol=0.05, rtol=0)
    scale.train()
    before = scale.mean.clone()
    scale(features[:1])
    scale(torch.full((2, 3), torch.nan))
    assert torch.equal(scale.mean, before)
