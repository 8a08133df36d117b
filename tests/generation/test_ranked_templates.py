"""Ranked templates: equal ones counted together, the most frequent first, and crystals on them in that order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from nucleate.errors import ConditionError
from nucleate.generation.condition import Condition
from nucleate.generation.generator import Generator, load
from nucleate.generation.template_sampling import _keys, draw_templates, ranked_templates
from nucleate.processes.joint_process import template_batch
from nucleate.processes.template_process import SampledTemplate

TITANIA = Condition(formula="TiO2", num_atoms=(6, 6))


@pytest.fixture(scope="module")
def generator() -> Generator:
    return load()


def test_equivalent_templates_are_counted_together(generator: Generator) -> None:
    """Caesium at the corner or in the middle of the cube is one template, drawn always; letters alone tell two."""
    condition = Condition(formula="CsCl", num_atoms=(2, 2), space_groups=(221,))
    streams = [np.random.default_rng([0, k]) for k in range(40)]
    drawn = draw_templates(generator.template, condition, streams)
    letters = {tuple(sorted(zip(t.atomic_numbers.tolist(), t.wyckoff_indices.tolist()))) for t in drawn}
    assert len(letters) == 2  # negative control: without the normalizer they are different
    (only,) = ranked_templates(generator.template, condition, 0, 40)
    assert only.share == 1.0


def test_a_cell_tells_templates_apart_that_only_other_axes_join(generator: Generator) -> None:
    """A shift of the origin keeps every cell, an exchange of axes only those with equal axes."""
    cubic = (4.12, 4.12, 4.12, 90.0, 90.0, 90.0)
    condition = Condition(formula="CsCl", num_atoms=(2, 2), space_groups=(221,), lattice=cubic)
    (only,) = ranked_templates(generator.template, condition, 0, 40)
    assert only.share == 1.0
    letters = [(0, 1), (0, 2), (1, 0), (1, 3)]  # Pmmm: 1a 000, 1b 1/2 0 0, 1c 0 0 1/2, 1d 1/2 0 1/2
    drawn = [SampledTemplate(47, np.array(pair), np.array([55, 17]), 0.0) for pair in letters]

    def keys(*lengths: float) -> list[Hashable]:
        lattice = (*lengths, 90.0, 90.0, 90.0)
        return _keys(drawn, Condition(formula="CsCl", num_atoms=(2, 2), space_groups=(47,), lattice=lattice))

    along_a, along_c, back, along_c_too = keys(3.8, 4.1, 4.5)
    assert along_a == back != along_c == along_c_too
    assert len(set(keys(4.1, 3.8, 4.1))) == 1
    assert len(set(_keys(drawn, Condition(formula="CsCl", num_atoms=(2, 2), space_groups=(47,))))) == 1


def test_shares_estimate_the_networks_probabilities(generator: Generator) -> None:
    """Against 600 other draws: within five standard errors of the difference; at another temperature far off."""
    ranking = ranked_templates(generator.template, TITANIA, 1, 300)
    assert sum(r.share for r in ranking) == pytest.approx(1)
    shares = [r.share for r in ranking]
    assert shares == sorted(shares, reverse=True)
    keys = [c.bucket_key for c in template_batch([r.template for r in ranking]).to_crystals()]
    assert len(set(keys)) == len(keys)

    def off(temperature: float) -> float:
        streams = [np.random.default_rng([9, k]) for k in range(600)]
        drawn = draw_templates(generator.template, TITANIA, streams, temperature=temperature)
        counts = Counter(c.bucket_key for c in template_batch(drawn).to_crystals())
        return max(
            abs(share - counts[key] / 600) / np.sqrt(max(share, 1 / 300) * (1 / 300 + 1 / 600))
            for key, share in zip(keys[:5], shares)
        )

    assert off(1.0) < 5
    assert off(0.2) > 5


def test_crystals_come_in_the_order_of_the_ranking(generator: Generator) -> None:
    ranking = ranked_templates(generator.template, TITANIA, 3, 50, temperature=0.8)
    keys = [c.bucket_key for c in template_batch([r.template for r in ranking]).to_crystals()]
    made = generator.generate(TITANIA, len(keys) + 1, 3, ranked=50, temperature=0.8, steps=2, restarts=0)
    assert [c.bucket_key for c in made][:-1] == keys
    assert made[-1].bucket_key == keys[0]  # once more from the first
    assert not np.array_equal(made[-1].lattice_params, made[0].lattice_params)  # with another geometry
    assert [row.template_share for row in made.rows][:-1] == [r.share for r in ranking]


def test_the_first_ones_do_not_depend_on_n_or_batches(generator: Generator) -> None:
    many = generator.generate(TITANIA, 5, 4, ranked=40, steps=2, restarts=0)
    few = generator.generate(TITANIA, 3, 4, ranked=40, steps=2, restarts=0, batch_size=1)
    assert all(np.array_equal(a.lattice_params, b.lattice_params) for a, b in zip(few, many))
    assert [r.id for r in few.rows] == [r.id for r in many.rows[:3]]


def test_a_ranked_run_goes_on_and_keeps_its_shares(generator: Generator, tmp_path: Path) -> None:
    first = generator.generate(TITANIA, 2, 5, ranked=30, steps=2, restarts=0, out=tmp_path)
    both = generator.generate(TITANIA, 4, 5, ranked=30, steps=2, restarts=0, out=tmp_path)
    kept = pq.read_table(tmp_path / "crystals.parquet")["template_share"].to_pylist()
    assert kept == [r.template_share for r in both.rows]
    assert kept[:2] == [r.template_share for r in first.rows]


def test_without_ranking_there_is_no_share(generator: Generator) -> None:
    assert generator.generate(TITANIA, 1, 0, steps=1, restarts=0).rows[0].template_share is None


def test_a_negative_number_is_refused(generator: Generator) -> None:
    with pytest.raises(ConditionError, match="ranked must not be negative, got -1"):
        generator.generate(TITANIA, 1, ranked=-1)
