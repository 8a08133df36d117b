"""The rules of the house: help texts, start-up, direction of imports, file sizes, versions, lock file."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
from ase.build import bulk
from ase.io import write
from packaging.requirements import Requirement
from typer.testing import CliRunner

import nucleate
from nucleate.cli.app import app
from nucleate.data import build_store

ROOT = Path(__file__).resolve().parents[1]
MAX_LINES = 500

# Not on a bare accelerator machine, where training and reading a store must work.
BLOCKED = [
    "moyopy",
    "pymatgen",
    "gemmi",
    "ase",
    "pydantic",
    "typer",
    "rich",
    "scipy",
    "jaxtyping",
    "matplotlib",
]

# What a help text must not wait for.
HEAVY = ["torch", "lightning", "pymatgen", "moyopy", "gemmi", "ase", "scipy", "matplotlib", "pyarrow", "dask"]

TRAINING_PATH = """
import importlib.abc, sys

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

BLOCKED = set(sys.argv[1].split(","))
sys.meta_path.insert(0, Blocker())
"""

CRYSTAL_WORK = """
import numpy as np
from nucleate.crystal import Crystal, CrystalBatch, space_group

free_coords = np.array([[0.0, 0, 0], [0.305, 0, 0]])
rutile = Crystal(136, np.array([1.4, 0.0]), np.array([0, 5]), np.array([22, 8]), free_coords)
assert rutile.formula == "O2Ti", rutile.formula
assert len(rutile.unit_cell("conventional").atomic_numbers) == 6
assert space_group(225).wyckoff_positions[0].site_symmetry == "m-3m"
assert rutile.canonical().prototype_key == rutile.prototype_key
batch = CrystalBatch.from_crystals([rutile, rutile])
assert batch.num_atoms.tolist() == [6, 6], batch.num_atoms
"""

STORE_READING = """
from nucleate.data import Store

store = Store.open(sys.argv[2])
print(sorted(record.crystal.formula for record in store), store[0].crystal.num_orbits)
"""


def _commands() -> list[tuple[str, ...]]:
    """Every command and group of commands, as the words that follow ``nucleate``."""

    def walk(command: object, path: tuple[str, ...]) -> list[tuple[str, ...]]:
        children = getattr(command, "commands", {})
        return [path] + [found for name, child in children.items() for found in walk(child, (*path, name))]

    return walk(typer.main.get_command(app), ())


def _run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("command", _commands(), ids=lambda path: " ".join(path) or "nucleate")
def test_help_runs_and_has_an_example(command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0, result.output
    text = " ".join(result.output.split())
    after = text[re.search(r"[Ee]xample", text).start() :] if re.search(r"[Ee]xample", text) else ""
    assert " ".join(["nucleate", *command]) in after, f"the help of {command} shows no example of it"


def test_help_waits_for_no_heavy_library() -> None:
    result = _run_python(
        "import nucleate.cli.app, sys; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    )
    assert result.returncode == 0, result.stderr
    loaded = set(result.stdout.split())
    assert "typer" in loaded
    assert not loaded & set(HEAVY)


def test_import_of_the_package_loads_only_itself() -> None:
    result = _run_python(
        "import sys; before = set(sys.modules); import nucleate; print(*(set(sys.modules) - before))"
    )
    assert set(result.stdout.split()) <= {"nucleate", "__future__"}


def test_crystals_work_on_a_bare_accelerator_machine() -> None:
    result = _run_python(TRAINING_PATH + CRYSTAL_WORK, ",".join(BLOCKED))
    assert result.returncode == 0, result.stderr


def test_a_store_is_read_on_a_bare_accelerator_machine(tmp_path: Path) -> None:
    write(tmp_path / "copper.cif", bulk("Cu"), format="cif")
    write(tmp_path / "iron.cif", bulk("Fe"), format="cif")
    build_store(tmp_path, tmp_path / "store")
    result = _run_python(TRAINING_PATH + STORE_READING, ",".join(BLOCKED), str(tmp_path / "store"))
    assert result.returncode == 0, result.stderr
    assert result.stdout == "['Cu', 'Fe'] 1\n"


def test_the_block_blocks() -> None:
    for name in ("moyopy", "ase.io"):
        result = _run_python(TRAINING_PATH + f"import {name}", ",".join(BLOCKED))
        assert "ModuleNotFoundError" in result.stderr


def _lint_imports(source: Path) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.path.insert(0, {str(source)!r}); from importlinter.cli import lint_imports; "
    code += f"sys.exit(lint_imports(config_filename={str(ROOT / '.importlinter')!r}, no_cache=True))"
    return _run_python(code)


def test_imports_point_one_way() -> None:
    result = _lint_imports(ROOT / "src")
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("crystal/lattice.py", "from nucleate import cli"),
        ("crystal/lattice.py", "import pymatgen.core"),
        ("physics/density.py", "from nucleate.data import record"),
        ("new_room/__init__.py", "from nucleate import crystal"),
    ],
)
def test_an_import_in_the_wrong_direction_is_found(tmp_path: Path, file: str, line: str) -> None:
    package = tmp_path / "nucleate"
    shutil.copytree(ROOT / "src" / "nucleate", package, ignore=shutil.ignore_patterns("__pycache__"))
    target = package / file
    target.parent.mkdir(exist_ok=True)
    with target.open("a") as stream:
        stream.write(f"\n{line}\n")
    assert _lint_imports(tmp_path).returncode == 1


def test_no_file_hides_a_second_noun() -> None:
    files = [
        path for folder in ("src", "tests", "scripts", "benchmarks") for path in (ROOT / folder).rglob("*.py")
    ]
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in files
    }
    assert len(lengths) > 20
    assert {name: n for name, n in lengths.items() if n > MAX_LINES} == {}


def test_one_version_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    changelog = re.search(r"^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert project["version"] == nucleate.__version__ == importlib.metadata.version("nucleate")
    assert changelog is not None
    assert changelog[1] == nucleate.__version__


def test_lock_file_fits_the_project() -> None:
    lines = [
        line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")
    ]
    locked = dict(line.split("==") for line in lines)  # names and versions only: no addresses, no paths
    assert not [line for line in lines if re.search(r"[:/@+\s]", line)]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = project["dependencies"] + [
        r for rs in project["optional-dependencies"].values() for r in rs
    ]
    not_for_development = {Requirement(r).name for r in project["optional-dependencies"]["mp"]}
    for requirement in map(Requirement, requirements):
        if requirement.name not in {"nucleate", *not_for_development}:
            assert requirement.specifier.contains(locked[requirement.name]), requirement
