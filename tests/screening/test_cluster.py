"""Batch clusters from a file: dask-jobqueue's own scripts, real workers, and files that cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from distributed import Client
from faulty_emt import metals

from nucleate.errors import ConfigError
from nucleate.evaluation.workers import Workers
from nucleate.screening import Resources, ScreeningSettings, screen
from nucleate.screening.cluster import batch_cluster, make_cluster, read_cluster

SLURM = """\
system: slurm
jobs: 4
cores: 8
processes: 2
memory: 32GB
queue: standard
account: materials
walltime: "02:00:00"
"""


def _file(folder: Path, text: str) -> Path:
    path = folder / "cluster.yaml"
    path.write_text(text)
    return path


def _made(path: Path) -> Any:
    system, _, options = read_cluster(path)
    return make_cluster(path, system, options)


def test_the_job_script_asks_slurm_for_what_the_file_says(tmp_path: Path) -> None:
    path = _file(tmp_path, SLURM)
    system, jobs, options = read_cluster(path)
    assert (system, jobs) == ("slurm", 4)
    with make_cluster(path, system, options) as cluster:
        script = cluster.job_script()
    for line in ("-p standard", "-A materials", "--cpus-per-task=8", "--mem=30G", "-t 02:00:00"):
        assert f"#SBATCH {line}" in script
    assert "--nworkers 2" in script


# dask-jobqueue's own local jobs are ended without being waited for.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_workers_of_a_queue_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = _file(tmp_path, "system: local\njobs: 1\ncores: 1\nprocesses: 1\nmemory: 1GB\n")
    with batch_cluster(path) as address, Client(address) as client:
        assert client.submit(sum, [1, 2, 3]).result(timeout=120) == 6
        with Workers(1, address) as workers:  # what --scheduler does with a running cluster
            settings = ScreeningSettings.of(
                ["dedupe", "relax"],
                ["relax.check=false"],
                resources=Resources(potential="ase.calculators.emt:EMT"),
            )
            report = screen(metals("Cu", "Cu", "Au"), tmp_path / "out", settings, workers=workers)
        assert [(c.step, c.given, c.passed) for c in report.counts] == [
            ("read", 3, 3),
            ("dedupe", 3, 2),
            ("relax", 2, 2),
        ]
        assert len(list((tmp_path / "out" / "crystals").glob("*.cif"))) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- a\n", "NAME: VALUE"),
        ("system: cloud\njobs: 1\n", "system is one of slurm"),
        ("system: slurm\njobs: many\n", "jobs is the number"),
        ("system: slurm\njobs: 1\ncores: 1\n", "memory of one job is missing"),
        (SLURM.replace("queue:", "queu:"), "did you mean 'queue'"),
    ],
)
def test_files_that_cannot_be_say_why(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        _made(_file(tmp_path, text))


def test_two_workers_give_the_table_of_one(tmp_path: Path) -> None:
    crystals = metals("Cu", "Au", "Cu-Au", "Cu-Au", "Ag", "Ni")
    settings = ScreeningSettings.of(
        ["dedupe", "relax", "dedupe"],
        ["relax.check=false"],
        resources=Resources(potential="ase.calculators.emt:EMT"),
    )
    tables = []
    for num in (1, 2):
        with Workers(num) as workers:
            screen(crystals, tmp_path / str(num), settings, workers=workers)
        tables.append((tmp_path / str(num) / "crystals.csv").read_text())
        assert len(list((tmp_path / str(num) / "crystals").glob("*.cif"))) == 5
    assert tables[0] == tables[1]
