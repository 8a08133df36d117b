"""A small store of well-known crystals, and configurations that train in seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nucleate.data import Store, build_store
from nucleate.data.bundled import load_bundled
from nucleate.models.orbit_transformer import OrbitTransformerConfig
from nucleate.models.template_transformer import TemplateTransformerConfig
from nucleate.training.config import TrainingConfig

SMALL_GEOMETRY = OrbitTransformerConfig(scalars=16, vectors=4, hidden=16, layers=1, heads=2, num_basis=8)
SMALL_TEMPLATE = TemplateTransformerConfig(width=16, layers=1, heads=2)


@pytest.fixture(scope="session")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoded store of the bundled crystals of at most 14 atoms, a quarter of them for validation."""
    cells = [(c.id, c.unit_cell) for c in load_bundled() if c.unit_cell.num_atoms <= 14]
    rows = [
        {
            "material_id": name,
            "numbers": cell.atomic_numbers.tolist(),
            "lattice": cell.lattice.ravel().tolist(),
            "frac_coords": cell.frac_coords.ravel().tolist(),
            "split": "val" if i % 4 == 3 else "train",
            "band_gap": float(i % 5) if i % 3 else None,
        }
        for i, (name, cell) in enumerate(cells)
    ]
    folder = tmp_path_factory.mktemp("well_known")
    pq.write_table(pa.Table.from_pylist(rows), folder / "crystals.parquet")
    build_store(folder / "crystals.parquet", folder / "store", split="given")
    return folder / "store"


@pytest.fixture
def store(store_path: Path) -> Store:
    return Store.open(store_path)


@pytest.fixture
def small_config() -> Callable[..., TrainingConfig]:
    """A configuration of tiny networks; any key can be changed."""

    def make(**changes: Any) -> TrainingConfig:
        settings: dict[str, Any] = {
            "max_steps": 8,
            "batch_size": 8,
            "validate_every": 4,
            "log_every": 2,
            "warmup_steps": 2,
            "precision": "32-true",
            "accelerator": "cpu",
            "compile": "off",
            "sample_crystals": 6,
            "sample_steps": 2,
            "geometry": SMALL_GEOMETRY,
            "template": SMALL_TEMPLATE,
        }
        return TrainingConfig(**{**settings, **changes})

    return make
