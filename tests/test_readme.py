"""The README's quick start does what it says: its commands and its Python are run; links lead somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nucleate import errors

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
FENCE = re.compile(r"^```(bash|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^## Quick start\n(.*?)(?=^## )", re.DOTALL | re.MULTILINE)


def _quick_start() -> list[tuple[str, str]]:
    """(language, code) of the fenced blocks under the heading "Quick start", in their order."""
    section = HEADING.search((ROOT / "README.md").read_text(encoding="utf-8"))
    assert section is not None
    return FENCE.findall(section[1])


def _run(language: str, code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run one block as its reader would: bash stops at the first failing command."""
    start = ["bash", "-euo", "pipefail", "-c"] if language == "bash" else [sys.executable, "-c"]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        [*start, code],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_quick_start_runs(tmp_path: Path) -> None:
    blocks = _quick_start()
    assert {language for language, _ in blocks} == {"bash", "python"}
    for language, code in blocks:
        result = _run(language, code, tmp_path)
        assert result.returncode == 0, f"{code}\n{result.stdout}\n{result.stderr}"


@pytest.mark.parametrize(("language", "code"), [("bash", "false\ntrue"), ("python", "1 / 0")])
def test_a_block_that_fails_is_noticed(language: str, code: str, tmp_path: Path) -> None:
    assert _run(language, code, tmp_path).returncode != 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"\$\$.*?\$\$|\$.*?\$|```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = [target for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_first_screen_shows_how_to_start() -> None:
    first_screen = "\n".join((ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:40])
    for words in ("make demo", "make test", "docs/images/crystals.png"):
        assert words in first_screen


def test_every_error_has_a_way_out() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    named = [
        name for name, value in vars(errors).items() if isinstance(value, type) and name != "NucleateError"
    ]
    assert len(named) > 5
    assert [name for name in named if f"### {name}\n" not in page] == []
