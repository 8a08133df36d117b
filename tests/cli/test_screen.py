"""``nucleate screen`` from the command line: its table, its sentences, its exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest
from ase.build import bulk
from ase.io import write
from typer.testing import CliRunner

from nucleate.cli.app import app


@pytest.fixture
def metals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copper twice, gold, and a file that is no crystal."""
    monkeypatch.setenv("COLUMNS", "160")
    folder = tmp_path / "metals"
    folder.mkdir()
    for name, a in (("Cu", 3.61), ("Cu", 3.65), ("Au", 4.08)):
        write(folder / f"{name}-{a}.cif", bulk(name, "fcc", a=a))
    (folder / "zz.cif").write_text("nothing")
    return folder


def _run(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["screen", *map(str, words)])
    return result.exit_code, " ".join(result.output.split())


def test_the_table_says_what_became_of_the_candidates(metals: Path, tmp_path: Path) -> None:
    out = tmp_path / "screened"
    words = (metals, "--out", out, "--steps", "dedupe,relax", "--potential", "ase.calculators.emt:EMT")
    code, text = _run(*words)
    assert code == 0, text
    assert "read 4 3 0 1" in text
    assert "dedupe 3 2 1 0 1 a copy of another candidate" in text
    assert "relax 2 2 0 0" in text
    assert "2 of 4 candidates passed" in text
    assert len(list((out / "crystals").glob("*.cif"))) == 2
    code, text = _run(*words)
    assert code == 0
    assert "2 verdicts were known from an earlier run" in text


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--steps", "melt"), "There is no step 'melt'"),
        (("--set", "relax.fmx=1"), "did you mean 'fmax'?"),
        (("--steps", "relax", "--potential", "none"), "There is no potential 'none'"),
        (("--steps", "dedupe,hull", "--energy-column", "e"), "name a store with --reference"),
        (("--scheduler", "tcp://x:1", "--cluster", "c.yaml"), "give one of them"),
        (("--cluster", "missing.yaml"), "missing.yaml cannot be read"),
    ],
)
def test_mistakes_are_one_sentence(
    metals: Path, tmp_path: Path, words: tuple[str, ...], sentence: str
) -> None:
    code, text = _run(metals, "--out", tmp_path / "out", *words)
    assert code == 1
    assert sentence in text
    assert "Traceback" not in text


def test_a_set_without_a_crystal_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.cif").write_text("nothing")
    code, text = _run(tmp_path / "in", "--out", tmp_path / "out", "--steps", "dedupe")
    assert code == 1
    assert "None of the 1 inputs is a crystal" in text
