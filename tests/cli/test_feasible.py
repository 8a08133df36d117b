"""``nucleate feasible`` lists groups, cells and templates."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from nucleate.cli.app import app


def _run(*arguments: str):
    return CliRunner().invoke(app, ["feasible", *arguments])


def test_perovskite_templates_are_listed() -> None:
    result = _run("--formula", "SrTiO3", "--num-atoms", "5", "--space-group", "215..221", "--templates")
    assert result.exit_code == 0, result.output
    assert "Sr:1a Ti:1b O:3c" in result.stdout
    assert "Pm-3m" in result.stdout


def test_a_list_that_may_not_be_whole_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut at ``--max-templates``, or its search ended at the bound; otherwise there is no sign."""
    asked = ("--formula", "NaCl", "--num-atoms", "6", "--space-group", "3", "--templates")

    def shown(most: int) -> tuple[str, bool]:
        result = _run(*asked, "--max-templates", str(most))
        assert result.exit_code == 0, result.output
        (row,) = [line.split() for line in result.stdout.splitlines() if "monoclinic" in line]
        return row[3], "(not all)" in result.stdout

    assert shown(1000) == ("43", False)
    assert shown(5) == ("5+", True)
    monkeypatch.setattr("nucleate.generation.feasible_groups.MAX_NODES", 20)
    assert shown(1000) == ("6+", True)


def test_an_impossible_formula_says_why() -> None:
    result = _run("--formula", "SrTiO3", "--space-group", "230", "--num-atoms", "5")
    assert result.exit_code == 1
    assert "it fits with 40" in " ".join(result.stderr.split())
