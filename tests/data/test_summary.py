"""The summary of a store against counting one by one, and its drawings."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from crystal_tables import TableWriter
from PIL import Image
from pymatgen.core import Element

from nucleate.data import Store, build_store
from nucleate.data.periodic_table import NUM_COLUMNS, NUM_ROWS, place
from nucleate.data.plots import draw_summary
from nucleate.data.summary import summarise


@pytest.fixture
def store(tmp_path: Path, write_source: TableWriter) -> Store:
    build_store(write_source(60), tmp_path / "store")
    return Store.open(tmp_path / "store")


def _as_counter(counts: np.ndarray, first: int = 0) -> Counter[int]:
    return Counter({i + first: int(n) for i, n in enumerate(counts) if n})


@pytest.mark.parametrize("split", [None, "train"])
def test_the_summary_counts_what_is_there(store: Store, split: str | None) -> None:
    chosen = store if split is None else store.split(split)
    crystals = [record.crystal for record in chosen]
    summary = summarise(chosen)
    assert summary.num_records == len(crystals)
    assert _as_counter(summary.space_groups, 1) == Counter(c.space_group_number for c in crystals)
    elements = Counter(z for c in crystals for z in set(c.atomic_numbers.tolist()))
    assert _as_counter(summary.elements, 1) == elements
    assert _as_counter(summary.num_orbits) == Counter(c.num_orbits for c in crystals)
    assert _as_counter(summary.num_atoms) == Counter(c.num_atoms_primitive for c in crystals)
    assert _as_counter(summary.num_elements) == Counter(len(c.composition) for c in crystals)
    assert summary.mean_density == pytest.approx(np.mean([c.density for c in crystals]))
    assert summary.densities.sum() == len(crystals)
    assert summary.num_prototypes == len({c.prototype_key for c in crystals})
    assert summary.num_chiral == sum(c.handedness != 0 for c in crystals)


def test_the_drawings_are_pictures_with_something_in_them(store: Store, tmp_path: Path) -> None:
    paths = draw_summary(summarise(store), tmp_path / "plots", title="Sixty crystals")
    assert [p.name for p in paths] == [
        "space_groups.png",
        "elements.png",
        "orbits.png",
        "atoms.png",
        "density.png",
    ]
    for path in paths:
        pixels = np.asarray(Image.open(path).convert("L"))
        assert min(pixels.shape) > 500
        assert 0.01 < (pixels < 250).mean() < 0.9, path.name
    assert sorted(p.name for p in (tmp_path / "plots").iterdir()) == sorted(p.name for p in paths)


def test_an_empty_store_can_be_drawn_too(store: Store, tmp_path: Path) -> None:
    empty = store.select(np.array([], dtype=np.int64))
    assert len(draw_summary(summarise(empty), tmp_path / "plots", title="Nothing")) == 5


def test_every_element_has_its_own_place() -> None:
    places = {z: place(z) for z in range(1, 119)}
    assert len(set(places.values())) == 118
    assert all(0 <= row < NUM_ROWS and 0 <= column < NUM_COLUMNS for row, column in places.values())
    for z, (row, column) in places.items():
        if not (57 <= z <= 71 or 89 <= z <= 103):
            element = Element.from_Z(z)
            assert (row, column) == (element.row - 1, element.group - 1), element
