"""Fixtures shared by all tests: where the real data sets lie, and a seeded random generator."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import spglib.error

spglib.error.OLD_ERROR_HANDLING = False  # failures raise; the old way warns, and warnings are errors here


def _find_shared_data() -> Path | None:
    candidates = [Path(__file__).resolve().parents[2] / "shared" / "data"]
    if "NUCLEATE_SHARED_DATA" in os.environ:
        candidates.insert(0, Path(os.environ["NUCLEATE_SHARED_DATA"]))
    return next((path for path in candidates if (path / "mp_20.parquet").exists()), None)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with the real data sets; tests that need it skip where it is absent."""
    path = _find_shared_data()
    if path is None:
        pytest.skip(
            "the real data sets are not beside this checkout (set NUCLEATE_SHARED_DATA to their folder)"
        )
    return path


@pytest.fixture
def rng() -> np.random.Generator:
    """Random generator with a fixed seed."""
    return np.random.default_rng(0)
