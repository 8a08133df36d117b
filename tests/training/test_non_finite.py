"""Losses and gradients that are not finite: whose they are is written, and the rest goes on."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nucleate.data import Store
from nucleate.errors import TrainingError
from nucleate.models.checkpoint import load_checkpoint
from nucleate.training.config import TrainingConfig
from nucleate.training.geometry_task import GeometryTask
from nucleate.training.train import train

Configs = Callable[..., TrainingConfig]


@pytest.mark.parametrize(("what", "accumulate"), [("loss", 1), ("gradient", 1), ("gradient", 4)])
def test_a_crystal_that_is_not_finite_is_named_and_the_rest_goes_on(
    store_path: Path,
    small_config: Configs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    accumulate: int,
) -> None:
    config = small_config(part="geometry", accumulate=accumulate, max_steps=8 // accumulate)
    bad = next(r for r in Store.open(store_path).iter_records(split="train") if r.crystal.formula == "CaF2")
    original = GeometryTask.losses

    def spoiled(self, network, example):
        losses = original(self, network, example)
        if (example.clean.atomic_numbers == 20).any() and (example.clean.atomic_numbers == 9).any():
            zero = 0 * network.force_gate[-1].bias.sum()
            # the square root of 0 has an infinite slope
            losses["loss"] = losses["loss"] + (torch.nan if what == "loss" else torch.sqrt(zero**2))
        return losses

    monkeypatch.setattr(GeometryTask, "losses", spoiled)
    with pytest.warns(UserWarning, match=f"the {what} of {re.escape(bad.id)} is not finite"):
        report = train(store_path, config, out=tmp_path / "run")
    assert report.num_non_finite >= 1
    with (tmp_path / "run" / "non_finite.csv").open() as stream:
        assert {(row["id"], row["not_finite"]) for row in csv.DictReader(stream)} == {(bad.id, what)}
    network = load_checkpoint(report.weights).geometry
    assert network is not None
    assert all(torch.isfinite(w).all() for w in network.parameters())
    monkeypatch.setattr("nucleate.training.network_module.MOST_NON_FINITE", 0)
    with (
        pytest.warns(UserWarning, match=bad.id),
        pytest.raises(TrainingError, match=r"named in non_finite\.csv"),
    ):
        train(store_path, config, out=tmp_path / "strict")


def test_where_no_crystal_alone_is_to_blame_none_is_named(
    store_path: Path, small_config: Configs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = GeometryTask.losses

    def spoiled(self, network, example):
        losses = original(self, network, example)
        if network.training and len(example) > 1:
            losses["loss"] = losses["loss"] + torch.nan
        return losses

    monkeypatch.setattr(GeometryTask, "losses", spoiled)
    with pytest.warns(UserWarning, match="the loss is not finite, though that of each crystal alone is"):
        report = train(store_path, small_config(part="geometry", max_steps=1), out=tmp_path / "run")
    assert report.num_non_finite == 1
    with (tmp_path / "run" / "non_finite.csv").open() as stream:
        assert [(row["id"], row["not_finite"]) for row in csv.DictReader(stream)] == [("", "loss")]
