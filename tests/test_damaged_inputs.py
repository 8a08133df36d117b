"""Damaged files of every kind among good ones: no crash, one reason for each bad one, every good one encoded."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from nucleate.data.cleaning import UNEXPECTED, Cleaned, EncodingSettings, clean
from nucleate.data.record import Rejection
from nucleate.data.sources import open_source
from nucleate.errors import NucleateError

NUM_DAMAGED = 140  # every kind once


@pytest.fixture(scope="module")
def damage() -> ModuleType:
    """The generator of damaged files, which lives with the benchmark that makes thousands of them."""
    path = Path(__file__).parents[1] / "benchmarks" / "damage.py"
    spec = importlib.util.spec_from_file_location("damage", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["damage"] = module
    spec.loader.exec_module(module)
    return module


def read_all(path: Path) -> tuple[int, list[str]]:
    """(number of crystals encoded, reasons for the rest) of a source."""
    num_good, reasons = 0, []
    try:
        source = open_source(path)
        for task in source.tasks():
            for item in source.read(task):
                result = item if isinstance(item, Rejection) else clean(item, EncodingSettings())
                if isinstance(result, Cleaned):
                    num_good += 1
                else:
                    assert getattr(result, "category", "") != UNEXPECTED, result
                    reasons.append(result.reason)
    except NucleateError as error:
        reasons.append(str(error))
    return num_good, reasons


@pytest.mark.filterwarnings("ignore")  # of the libraries that read foreign formats, about what they read
def test_every_kind_of_damage_gives_one_reason_and_good_files_encode(
    damage: ModuleType, tmp_path: Path
) -> None:
    wrong, expected_good, expected_bad, kinds = [], 0, 0, set()
    for number, item in enumerate(damage.damaged_files(NUM_DAMAGED, seed=7)):
        if "100,000" in item.kind:  # slow to make; the benchmark has them
            continue
        path = tmp_path / f"{number:03d}" / item.name
        path.parent.mkdir()
        path.write_bytes(item.content)
        kinds.add(item.kind)
        num_good, reasons = read_all(path)
        expected_good += num_good if item.num_good < 0 else item.num_good
        expected_bad += item.num_bad
        if (item.num_good >= 0 and num_good != item.num_good) or len(reasons) != item.num_bad:
            wrong.append((item.kind, num_good, reasons))
        wrong += [(item.kind, reason) for reason in reasons if "\n" in reason or not 10 < len(reason) < 500]
    assert not wrong
    assert len(kinds) > 130
    # All of it as one folder: no file stops the others.
    num_good, reasons = read_all(tmp_path)
    assert (num_good, len(reasons)) == (expected_good, expected_bad)


def test_the_check_notices_a_damaged_file_that_passes_for_good(damage: ModuleType, tmp_path: Path) -> None:
    good = next(item for item in damage.damaged_files(20, seed=7) if item.num_bad == 0)
    path = tmp_path / good.name
    path.write_bytes(good.content)
    assert read_all(path) == (good.num_good, [])
