"""``nucleate generate``: options become a condition, refusals come before sampling, the folder is written."""

from __future__ import annotations

import csv
import inspect
import json
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from nucleate.cli.app import app
from nucleate.cli.generate import (
    generate,
    parse_device,
    parse_groups,
    parse_lattice,
    parse_range,
    parse_strengths,
    parse_temperature,
)
from nucleate.crystal import Crystal, encode
from nucleate.data.bundled import bundled_crystal
from nucleate.errors import ConditionError
from nucleate.generation.generator import TEMPERATURE, Generator
from nucleate.models.checkpoint import Checkpoint, save_checkpoint
from nucleate.models.orbit_transformer import OrbitTransformer, OrbitTransformerConfig
from nucleate.models.template_transformer import TemplateTransformer, TemplateTransformerConfig
from nucleate.processes.template_process import TemplateTemperature


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    checkpoint = Checkpoint(
        geometry=OrbitTransformer(
            OrbitTransformerConfig(scalars=16, vectors=4, hidden=16, layers=1, heads=2)
        ),
        template=TemplateTransformer(TemplateTransformerConfig(width=16, layers=1, heads=2)),
        lattice_mean=torch.tensor([1.65, 0.0, 0.0, 0.0, 0.0, 0.0]),
        lattice_std=torch.full((6,), 0.1),
    )
    return save_checkpoint(tmp_path_factory.mktemp("weights") / "random.safetensors", checkpoint)


def _run(*arguments: object):
    return CliRunner().invoke(app, ["generate", *map(str, arguments)])


def test_crystals_are_written_and_shown(weights: Path, tmp_path: Path) -> None:
    options = ["--formula", "SrTiO3", "--num-atoms", "5", "--crystal-system", "cubic", "-n", 3, "--seed", 1]
    result = _run(*options, "--steps", 3, "--batch-size", 2, "--weights", weights, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "3 crystals, 1 formulas" in " ".join(result.stdout.split())
    with (tmp_path / "out" / "crystals.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["formula"] for row in rows} == {"O3SrTi"}
    assert all(int(row["space_group_asked"]) >= 195 for row in rows)
    assert len(list((tmp_path / "out" / "crystals").glob("*.cif"))) == 3


def test_every_option_reaches_the_condition(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {}
    original = Generator.generate

    def listening(self, condition, n, seed, **settings):
        asked.update(condition.to_dict(), n=n, seed=seed, **settings)
        return original(self, condition, n, seed, **settings)

    monkeypatch.setattr(Generator, "generate", listening)
    result = _run(
        *("--elements", "Ti", "--allow", "Ti,O,N", "--exclude", "N", "--num-atoms", "2..6", "--neutral"),
        *("--space-group", "136", "--template", "2a 4f", "--lattice", "4.6,4.6,2.96,90,90,90"),
        *("-n", 1, "--seed", 7, "--steps", 2, "--temperature", "0.5,0.6,1", "--batch-size", 9),
        *("--weights", weights, "--out", tmp_path / "out", "--device", "cpu"),
    )
    assert result.exit_code == 0, result.output
    expected = {
        "elements": ["Ti"],
        "allowed": ["Ti", "O", "N"],
        "excluded": ["N"],
        "num_atoms": [2, 6],
        "neutral": True,
        "space_groups": [136],
        "template": "2a 4f",
        "lattice": [4.6, 4.6, 2.96, 90.0, 90.0, 90.0],
        "n": 1,
        "seed": 7,
        "steps": 2,
        "temperature": TemplateTemperature(group=0.5, positions=0.6, elements=1.0),
        "batch_size": 9,
    }
    assert {name: asked[name] for name in expected} == expected


def test_a_wanted_property_is_shown_and_written(tmp_path: Path) -> None:
    result = _run(
        *("--formula", "NaCl", "--space-group", "225", "--property", "band_gap=4..6", "--steps", 2),
        *(
            "--property",
            "formation_energy_per_atom=-2",
            "--candidates",
            2,
            "-n",
            2,
            "--out",
            tmp_path / "out",
        ),
    )
    assert result.exit_code == 0, result.output
    assert "band_gap asked 4..6: " in result.stdout
    assert "formation_energy_per_atom asked -2: " in result.stdout
    with (tmp_path / "out" / "crystals.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert all(3 < float(row["predicted_band_gap"]) < 7 for row in rows)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--formula", "SrTiO3", "--space-group", "225", "--num-atoms", "5"], "it fits with 10"),
        (["--formula", "Na1.5Cl"], "not a formula of whole atoms"),
        (["--elements", "O", "--exclude", "O"], "at the same time excluded"),
        (["--num-atoms", "a few"], "--num-atoms takes a range such as 4..12"),
        (["--space-group", "231"], "run from 1 to 230"),
        (["--temperature", "0.9,0.6"], "--temperature takes one number, or three"),
        (["--temperature", "0.9,0,1"], "temperature of the positions must be above 0"),
        (["--lattice", "1,2,3"], "--lattice takes six numbers"),
        (["--device", "abacus"], "no device 'abacus' here"),
        (["--guidance", "distanze=20"], "There is no guidance 'distanze': it is distance, volume"),
        (
            ["--guidance", "distance=-1"],
            "strength of the guidance 'distance' must be a number that is not negative",
        ),
        (["--guidance", "distance=nan"], "must be a number that is not negative, got nan"),
        (["--guidance", "nowhere:energy=1"], "cannot be loaded"),
        (["--property", "band_gap"], "--property takes NAME=VALUE or NAME=LO..HI"),
        (["--property", "band_gap=1..", "--property", "band_gap=..2"], "names band_gap twice"),
        (["--property", "band_gap=2..1"], "The range of band_gap, 2 to 1, is empty"),
        (["--property", "gap=1"], "no property 'gap'; they read band_gap (eV), formation_energy_per_atom"),
        (["--weights", "absent.safetensors"], "There are no weights at absent.safetensors"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    options: list[str], message: str, tmp_path: Path
) -> None:
    result = _run(*options, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()


def test_a_parent_is_read_and_opened(weights: Path, tmp_path: Path) -> None:
    """Rutile with other metals: oxygens and cell stay; what is wrong with a parent is one sentence."""
    parent, out = tmp_path / "rutile.cif", tmp_path / "out"
    rutile = encode(bundled_crystal("tio2-rutile").unit_cell).crystal
    parent.write_text(rutile.to_cif())
    options = ["--weights", weights, "-n", 3, "--steps", 2, "--candidates", 2]
    result = _run("--parent", parent, "--open", "Ti", *options, "--out", out)
    assert result.exit_code == 0, result.output
    (asked,) = [json.loads((out / "run.json").read_text())["asked"]]
    assert asked["condition"]["template"].startswith("2a O:4f(0.")
    for path in (out / "crystals").glob("*.cif"):
        made = Crystal.from_structure(path.read_text(), symprec=1e-3).crystal
        assert made.volume_per_atom == pytest.approx(rutile.volume_per_atom, rel=1e-6)
    for wrong, message in (
        (["--parent", parent], "Everything of the parent O2Ti is given, say what is open"),
        (["--parent", tmp_path / "absent.cif", "--open", "Ti"], "There is no file"),
        (["--parent", parent, "--open", "Ti", "--space-group", 136], "says the space group already"),
        (["--open", "Ti"], "name its file with --parent"),
        (["--symprec", 0.1], "name its file with --parent"),
    ):
        result = _run(*wrong, *options, "--out", tmp_path / "wrong")
        assert result.exit_code == 1
        assert message in " ".join(result.stderr.split())
    parent.write_text("data_\n")
    result = _run("--parent", parent, "--open", "Ti", *options, "--out", tmp_path / "wrong")
    assert result.exit_code == 1
    assert "rutile.cif" in result.stderr
    assert not (tmp_path / "wrong").exists()


def test_an_energy_is_found_in_the_current_folder(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_springs.py").write_text(
        "def energy(crystals):\n    return crystals.lattice_params.sum(dim=1)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    result = _run(
        *("-n", 1, "--steps", 2, "--num-atoms", "1..4", "--guidance", "my_springs:energy=0.1"),
        *("--weights", weights, "--out", tmp_path / "out"),
    )
    assert result.exit_code == 0, result.output


def test_a_device_without_double_precision_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def zeros(*sizes: int, device: torch.device, dtype: torch.dtype) -> None:
        raise TypeError(
            "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64."
        )

    monkeypatch.setattr(torch, "zeros", zeros)
    with pytest.raises(ConditionError, match="'mps' has no double precision"):
        parse_device("mps")


def test_a_missing_device_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def zeros(*sizes: int, device: torch.device, dtype: torch.dtype) -> None:
        raise RuntimeError(
            "Could not run 'aten::empty.memory_format' with arguments from the 'MPS' backend. "
            + 99 * "This could be. "
        )

    monkeypatch.setattr(torch, "zeros", zeros)
    with pytest.raises(ConditionError, match="There is no device 'mps' here") as refused:
        parse_device("mps")
    assert len(str(refused.value)) < 250


def test_ranges_and_lists_are_read() -> None:
    assert parse_range("4..12", "x") == (4, 12)
    assert parse_range("7", "x") == (7, 7)
    assert parse_groups("221, 225,195..197,195") == (221, 225, 195, 196, 197)
    assert parse_lattice("1,2,3,90,91,92") == (1, 2, 3, 90, 91, 92)
    assert parse_temperature("0.7") == TemplateTemperature(0.7, 0.7, 0.7)
    assert parse_temperature(str(TEMPERATURE)) == TEMPERATURE
    assert inspect.signature(generate).parameters["temperature"].default == str(TEMPERATURE)
    assert parse_strengths(["distance=20", "mine.energy:pairs=0.5"]) == {
        "distance": 20,
        "mine.energy:pairs": 0.5,
    }
    assert parse_strengths(["none"]) == {}
    with pytest.raises(ConditionError, match="none alone"):
        parse_strengths(["none", "distance=20"])
    for text in ("", "4-12", "..3"):
        with pytest.raises(ConditionError, match="takes a range"):
            parse_range(text, "--num-atoms")
