"""Every family but the costly one on real crystals through the whole evaluation: the keys that users rely on."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from nucleate.data import Store
from nucleate.evaluation import evaluate
from nucleate.evaluation.summary import summary_schema

PROMISED = (
    "structural_validity",
    "compositional_validity",
    "uniqueness",
    "novelty",
    "p1_share",
    "w_density",
    "w_num_elements",
)


def test_the_promised_keys_stand_in_the_summary(
    crystal_folder: Path, reference_store: Store, tmp_path: Path
) -> None:
    pytest.importorskip("matminer")
    pytest.importorskip("smact")
    families = ["validity", "symmetry", "distribution", "novelty", "csp", "condition"]
    report = evaluate(
        crystal_folder,
        reference_store.location,
        out=tmp_path / "report",
        metrics=families,
        cache=tmp_path / "cache",
    )
    assert not report.problems
    assert not report.reference_problems
    content = json.loads((tmp_path / "report" / "summary.json").read_text())
    jsonschema.validate(content, summary_schema())
    for key in PROMISED:
        assert content[key]["value"] is not None, key
        assert content[key]["n"] > 0
        assert content[key]["protocol"]
    # Fourteen elements and compounds, all different; one file that is nothing and one whose atoms coincide.
    assert content["structural_validity"]["value"] == pytest.approx(14 / 16)
    assert content["uniqueness"]["value"] == pytest.approx(14 / 16)
    assert content["structural_validity"]["reference"] == 1
    # The reference holds the same crystals, strained by up to 3 %.
    assert content["novelty"]["value"] == 0
    assert content["about"]["sample_efficiency"]["curves"]["unique"][-1] == 14
    drawn = {path.name for path in (tmp_path / "report" / "plots").iterdir()}
    assert {"validity_shares.png", "space_groups.png", "density.png", "num_elements.png"} <= drawn
