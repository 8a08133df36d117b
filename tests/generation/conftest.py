"""Small networks with random weights: conditions and determinism hold whatever the weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nucleate.generation.generator import Generator, load
from nucleate.models.checkpoint import Checkpoint, save_checkpoint
from nucleate.models.orbit_transformer import OrbitTransformer, OrbitTransformerConfig
from nucleate.models.template_transformer import TemplateTransformer, TemplateTransformerConfig


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    checkpoint = Checkpoint(
        geometry=OrbitTransformer(
            OrbitTransformerConfig(scalars=16, vectors=4, hidden=16, layers=1, heads=2)
        ),
        template=TemplateTransformer(TemplateTransformerConfig(width=16, layers=1, heads=2)),
        lattice_mean=torch.tensor([1.65, 0.0, 0.0, 0.0, 0.0, 0.0]),
        lattice_std=torch.tensor([0.1, 0.3, 0.2, 0.1, 0.1, 0.1]),
        sources=("mp_20", "wbm"),
    )
    return save_checkpoint(tmp_path_factory.mktemp("weights") / "random.safetensors", checkpoint)


@pytest.fixture(scope="session")
def generator(weights: Path) -> Generator:
    return load(weights)
