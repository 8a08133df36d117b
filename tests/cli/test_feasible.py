"""``nucleate feasible`` lists groups, cells and templates."""

from __future__ import annotations

from typer.testing import CliRunner

from nucleate.cli.app import app


def _run(*arguments: str):
    return CliRunner().invoke(app, ["feasible", *arguments])


def test_perovskite_templates_are_listed() -> None:
    result = _run("--formula", "SrTiO3", "--num-atoms", "5", "--space-group", "215..221", "--templates")
    assert result.exit_code == 0, result.output
    assert "Sr:1a Ti:1b O:3c" in result.stdout
    assert "Pm-3m" in result.stdout


def test_an_impossible_formula_says_why() -> None:
    result = _run("--formula", "SrTiO3", "--space-group", "230", "--num-atoms", "5")
    assert result.exit_code == 1
    assert "it fits with 40" in " ".join(result.stderr.split())
