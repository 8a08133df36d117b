"""Properties asked for: sampling by rejection from what comes without them, and nothing else changes.

With random weights what a head reads means nothing, so that what is kept can be compared with what it says.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from nucleate.crystal import Crystal, CrystalBatch
from nucleate.errors import ConditionError, NucleateError
from nucleate.generation.condition import Condition
from nucleate.generation.generator import Generation, Generator, load
from nucleate.generation.property_targets import PropertyTarget, first_wanted, parse_property
from nucleate.models.checkpoint import Checkpoint, load_checkpoint
from nucleate.models.property_head import PropertyHead, PropertyHeadConfig, pooled_features
from nucleate.prediction import PropertyReader

FEW = {"steps": 2, "restarts": 0}


@pytest.fixture(scope="module")
def reading(weights: Path) -> Checkpoint:
    """The random networks with a random head of two properties, scaled so that they differ from crystal to crystal."""
    checkpoint = load_checkpoint(weights)
    assert checkpoint.geometry is not None
    torch.manual_seed(5)
    head = PropertyHead(
        PropertyHeadConfig(16, ("gap", "energy"), ("eV", ""), (2.0, 0.0), (1.0, 3.0), hidden=8)
    )
    made = list(Generator(checkpoint).generate(n=40, seed=9, **FEW))
    batch = CrystalBatch.from_crystals(made, dtype=torch.float32)
    with torch.no_grad():
        values = head(pooled_features(checkpoint.geometry, batch))  # in training: learns the scale
        spread = values.std(dim=0) / head.stds
        head.network[-1].weight /= spread[:, None]
        head.network[-1].bias /= spread
    return checkpoint.replace(properties=head.eval())


@pytest.fixture(scope="module")
def generator(reading: Checkpoint) -> Generator:
    return Generator(reading)


def _same(one: Crystal, other: Crystal) -> bool:
    return (
        one.space_group_number == other.space_group_number
        and np.array_equal(one.wyckoff_indices, other.wyckoff_indices)
        and np.array_equal(one.atomic_numbers, other.atomic_numbers)
        and np.allclose(one.free_coords, other.free_coords, atol=1e-3)
    )


def _gaps(made: Generation) -> np.ndarray:
    return np.array([row.predicted["gap"] for row in made.rows])


def _made(generator: Generator, properties: Any, n: int = 6, **settings: Any) -> Generation:
    condition = Condition(num_atoms=(2, 12), properties=properties)
    return generator.generate(condition, n, 4, **{**FEW, **settings})


def test_what_anything_is_asked_of_is_what_comes_unasked(generator: Generator) -> None:
    """The first candidate is the crystal without the wish, and is kept where the wish is no wish."""
    plain = generator.generate(Condition(num_atoms=(2, 12)), 6, 4, **FEW)
    anything = _made(generator, {"gap": (None, 1e9)})
    assert all(map(_same, plain, anything))
    assert not plain.rows[0].predicted


def test_the_first_candidate_within_the_range_is_kept(generator: Generator, reading: Checkpoint) -> None:
    """With fewer candidates it is the same crystal if it was among them, else one outside the range."""
    low, high = np.quantile(_gaps(_made(generator, {"gap": (None, 1e9)}, 40)), [0.55, 0.9])
    kept = _made(generator, {"gap": (low, high)}, 8)
    gaps = _gaps(kept)
    assert ((gaps >= low) & (gaps <= high)).all()
    assert np.allclose(PropertyReader(reading).predict(list(kept))["gap"], gaps, atol=1e-4)
    for most in (1, 3):
        fewer = _made(generator, {"gap": (low, high)}, 8, candidates=most)
        within = (_gaps(fewer) >= low) & (_gaps(fewer) <= high)
        assert within.tolist() == list(map(_same, fewer, kept))
        assert not within.all()
    others = _gaps(_made(generator, {"gap": (None, float(low))}, 8))
    assert (others <= low).all()


def test_the_nearest_is_kept_where_none_is_within(generator: Generator) -> None:
    far, most = 1e6, 6
    nearest = _gaps(_made(generator, {"gap": far}, candidates=most))
    fewer = _gaps(_made(generator, {"gap": (far, None)}, candidates=2))
    first = _gaps(_made(generator, {"gap": far}, candidates=1))
    assert (nearest >= fewer).all()
    assert (fewer >= first).all()
    assert (nearest > first).any()


def test_two_properties_at_once_beside_everything_else(generator: Generator) -> None:
    condition = {"elements": ("O",), "space_groups": (62, 166, 225), "num_atoms": (2, 14)}
    free = generator.generate(
        Condition(**condition, properties={"gap": (None, 1e9), "energy": (None, 1e9)}), 30, **FEW
    )
    gap, energy = (float(np.median([row.predicted[name] for row in free.rows])) for name in ("gap", "energy"))
    asked = Condition(**condition, properties={"gap": (gap, None), "energy": (None, energy)})
    made = generator.generate(asked, 6, **FEW)
    for row, crystal in zip(made.rows, made, strict=True):
        assert 8 in crystal.composition
        assert crystal.space_group_number in (62, 166, 225)
        assert 2 <= crystal.num_atoms_primitive <= 14
        assert row.predicted["gap"] >= gap
        assert row.predicted["energy"] <= energy


def test_given_coordinates_and_properties_together(generator: Generator) -> None:
    given = Condition(template="O:4f(0.305) ...", space_groups=(136,), num_atoms=(6, 14))
    free = generator.generate(
        Condition(**{**vars_of(given), "properties": {"gap": (None, 1e9)}}), 12, candidates=4, **FEW
    )
    half = float(np.median(_gaps(free)))
    made = generator.generate(Condition(**{**vars_of(given), "properties": {"gap": (half, None)}}), 6, **FEW)
    assert (_gaps(made) >= half).all()
    assert all(0.305 in crystal.free_coords[:, 0] for crystal in made)


def vars_of(condition: Condition) -> dict[str, Any]:
    return {name: getattr(condition, name) for name in ("template", "space_groups", "num_atoms")}


def test_the_same_seed_gives_the_same_whatever_the_batch_size(generator: Generator) -> None:
    wish = {"gap": (2.0, 4.0)}
    together, alone, side_by_side = (
        _made(generator, wish, 5, **changes)
        for changes in ({}, {"batch_size": 1}, {"batch_size": 2, "workers": 2})
    )
    assert all(map(_same, together, alone))
    assert all(map(_same, together, side_by_side))
    np.testing.assert_array_equal(_gaps(together), _gaps(alone))


def test_a_folder_holds_what_was_read_and_goes_on(generator: Generator, tmp_path: Path) -> None:
    wish = {"gap": (2.0, None), "energy": (-9.0, None)}
    _made(generator, wish, 2, out=tmp_path / "run")
    told: list[float] = []
    whole = _made(generator, wish, 4, out=tmp_path / "run", on_progress=lambda p: told.append(p.fraction))
    table = pq.read_table(tmp_path / "run" / "crystals.parquet").to_pydict()
    assert table["predicted_gap"] == [row.predicted["gap"] for row in whole.rows]
    with open(tmp_path / "run" / "crystals.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["predicted_energy"]) for row in rows] == [row.predicted["energy"] for row in whole.rows]
    assert told == sorted(told)
    assert told[-1] == 1
    assert all(map(_same, whole, _made(generator, wish, 4)))
    with pytest.raises(NucleateError, match="holds a run with other settings"):
        _made(generator, {"gap": (2.5, None), "energy": -1.0}, 4, out=tmp_path / "run")


def test_what_cannot_be_read_is_refused(generator: Generator, weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ConditionError, match=r"read no property 'density'; they read gap \(eV\), energy\."):
        _made(generator, {"density": 3.0})
    with pytest.raises(ConditionError, match="read no properties: add a head"):
        Generator(load_checkpoint(weights)).generate(
            Condition(properties={"gap": 1.0}), out=tmp_path / "none"
        )
    assert not (tmp_path / "none").exists()
    with pytest.raises(ConditionError, match="without a look at properties"):
        _made(generator, {"gap": 1.0}, ranked=10)


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("band_gap=1.5", 1.5),
        ("band_gap = 1 .. 2", (1.0, 2.0)),
        ("band_gap=3..", (3.0, None)),
        ("band_gap=..-1e-1", (None, -0.1)),
        ("band_gap=-2...5", (-2.0, 0.5)),
    ],
)
def test_properties_are_read_from_text(text: str, asked: Any) -> None:
    name, found = parse_property(text)
    assert name == "band_gap"
    assert (tuple(found) if isinstance(found, list) else found) == asked
    condition = Condition(properties={name: found})
    assert Condition.from_dict(condition.to_dict()) == condition
    assert condition.to_dict()["properties"]["band_gap"] == found


@pytest.mark.parametrize(
    "text", ["band_gap", "=3", "band_gap=", "band_gap=..", "band_gap=1..2..3", "band_gap=high"]
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ConditionError, match="--property takes NAME=VALUE or NAME="):
        parse_property(text)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ((2.0, 1.0), "2 to 1, is empty"),
        (math.nan, "nan to nan, is empty"),
        ((math.inf, None), "inf to inf, is empty"),
        ((1.0, 2.0, 3.0), "by a number or by"),
    ],
)
def test_no_range_is_refused(asked: Any, message: str) -> None:
    with pytest.raises(ConditionError, match=message):
        Condition(properties={"gap": asked})


def test_a_value_that_is_no_number_is_never_kept_before_one() -> None:
    target = (PropertyTarget("gap", 1.0, 2.0),)
    has, best = first_wanted(target, np.array([[math.nan], [5.0], [3.0]]), [1.0])
    assert not has.any()
    assert best == 2


def test_the_shipped_weights_know_what_has_a_gap() -> None:
    """Insulators hold anions of a large electronegativity, metals as a rule none: known without any head."""
    generator = load()

    def anions(low: float | None, high: float | None) -> float:
        condition = Condition(num_atoms=(2, 8), properties={"band_gap": (low, high)})
        made = generator.generate(condition, 10, steps=4, restarts=0, candidates=8)
        return float(np.mean([bool({8, 9, 17} & crystal.composition.keys()) for crystal in made]))

    assert anions(3.0, None) > anions(None, 0.02) + 0.4
