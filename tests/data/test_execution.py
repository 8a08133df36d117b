"""Building with several processes, on a running scheduler and onto S3: the same store as in one process."""

from __future__ import annotations

import os
import socket
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import cloudpickle
import dask
import pytest
from crystal_tables import TableWriter
from distributed import LocalCluster
from typer.testing import CliRunner

from nucleate.cli.data import data_app
from nucleate.data import Record, Rejection, Store, Task, build_store
from nucleate.data.build import BuildProgress
from nucleate.data.build_job import BuildPlan, Job, run_job
from nucleate.data.cleaning import EncodingSettings
from nucleate.data.execution import JOBS_PER_WORKER, run_on_dask
from nucleate.data.split import SplitRule
from nucleate.errors import StoreError


def _cluster() -> LocalCluster:
    """A cluster inside this process, on ports that are free."""
    return LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        dashboard_address=None,
        scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
    )


def test_two_workers_give_the_store_of_one(tmp_path: Path, write_source: TableWriter) -> None:
    source = write_source(60, rows_per_task=10, change=lambda rows: rows[3].update(lattice=[0.0] * 9))
    states: list[BuildProgress] = []
    alone = build_store(source, tmp_path / "alone")
    together = build_store(source, tmp_path / "together", workers=2, on_progress=states.append)
    assert together.manifest.content_hash == alone.manifest.content_hash
    assert together.manifest.shards == alone.manifest.shards
    assert (tmp_path / "alone" / "rejected.csv").read_text() == (
        tmp_path / "together" / "rejected.csv"
    ).read_text()
    assert [s.done for s in states] == [0, 10, 20, 30, 40, 50, 60]
    assert states[-1].num_left_out == 1
    # A store that is complete needs no cluster.
    assert build_store(source, tmp_path / "together", workers=7).num_resumed == 60


def test_an_interrupted_build_with_workers_goes_on(tmp_path: Path, write_source: TableWriter) -> None:
    source = write_source(60, rows_per_task=10)

    def stop(state: BuildProgress) -> None:
        if state.done >= 20:
            raise KeyboardInterrupt

    with _cluster() as cluster:
        with pytest.raises(KeyboardInterrupt):
            build_store(source, tmp_path / "store", scheduler=cluster.scheduler_address, on_progress=stop)
        report = build_store(source, tmp_path / "store", scheduler=cluster.scheduler_address)
    assert 20 <= report.num_resumed < 60
    assert report.content_hash == build_store(source, tmp_path / "whole").content_hash


def test_a_scheduler_that_does_not_answer_is_named(
    tmp_path: Path, write_source: TableWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nucleate.data.execution.CONNECT_SECONDS", 1)
    with pytest.raises(StoreError, match=r"No Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        build_store(write_source(5), tmp_path / "store", scheduler="tcp://127.0.0.1:9")


def test_without_dask_it_says_what_to_install(
    tmp_path: Path, write_source: TableWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(StoreError, match=r"install nucleate\[cluster\]"):
        build_store(write_source(5), tmp_path / "store", workers=2)


@dataclass(frozen=True)
class _Deadly:
    """A source whose second task kills the process that reads it."""

    name: str = "deadly"
    licence: str | None = None
    units: Mapping[str, str] = ()  # type: ignore[assignment]

    def tasks(self) -> list[Task]:
        return [Task(key=str(i), file=f"file-{i}", count=1) for i in range(3)]

    def read(self, task: Task) -> Iterator[Record | Rejection]:
        if task.key == "1":
            os._exit(1)
        yield Rejection(task.file, 0, None, "nothing there")


def _plan(out: Path) -> BuildPlan:
    return BuildPlan(str(out), _Deadly(), EncodingSettings(), SplitRule())


def test_a_cluster_next_door_is_not_in_the_way(tmp_path: Path, write_source: TableWriter) -> None:
    with socket.socket() as other:
        with suppress(OSError):  # then somebody else has the port, which is as good
            other.bind(("127.0.0.1", 8787))
            other.listen()
        # Warnings are errors here, and Dask warns of a port that is taken.
        assert build_store(write_source(4), tmp_path / "store", workers=2).num_records == 4


def test_a_task_that_kills_its_workers_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # One job at a time: a neighbour waiting on a worker that dies could be blamed, depending on who is faster.
    monkeypatch.setattr("nucleate.data.execution.JOBS_PER_WORKER", 1)
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    jobs = [Job(i, task) for i, task in enumerate(_Deadly().tasks())]
    try:
        with (
            dask.config.set({"distributed.scheduler.allowed-failures": 0}),
            pytest.raises(StoreError, match=r"Workers died .* reading file-1 \(task 1\).*it goes on where"),
        ):
            list(run_on_dask(_plan(tmp_path), jobs, workers=1, scheduler=None))
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def test_only_a_few_jobs_are_out_at_a_time(tmp_path: Path) -> None:
    asked: list[int] = []

    def jobs() -> Iterator[Job]:
        for i in range(30):
            asked.append(i)
            yield Job(i, Task(key="0", file=f"file-{i}", count=1))

    with _cluster() as cluster:
        results = run_on_dask(_plan(tmp_path), jobs(), workers=1, scheduler=cluster.scheduler_address)
        for number, result in enumerate(results, 1):
            assert result.num_left_out == 1
            assert len(asked) <= number + JOBS_PER_WORKER
    assert len(asked) == 30
    assert run_job(_plan(tmp_path), Job(31, Task(key="2", file="x"))).num_left_out == 1


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    """Address of an S3 service on loopback."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the libraries the server imports
        from moto.server import ThreadedMotoServer

        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of an empty bucket, with the environment that reaches it."""
    import boto3
    import s3fs

    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_S3": s3_server,
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    client = boto3.client("s3")
    client.create_bucket(Bucket="crystals")
    yield "s3://crystals"
    for item in client.list_objects_v2(Bucket="crystals").get("Contents", []):
        client.delete_object(Bucket="crystals", Key=item["Key"])
    client.delete_bucket(Bucket="crystals")
    client.close()
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_store_on_s3_is_the_store_on_disk(bucket: str, tmp_path: Path, write_source: TableWriter) -> None:
    source, url = (
        write_source(60, change=lambda rows: rows[3].update(lattice=[0.0] * 9)),
        f"{bucket}/my/store",
    )

    def stop(state: BuildProgress) -> None:
        if state.done == 47:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_store(source, url, on_progress=stop)
    with pytest.raises(StoreError, match="not finished"):
        Store.open(url)
    remote = build_store(source, url)
    local = build_store(source, tmp_path / "store")
    assert remote.num_resumed == 40
    assert remote.manifest.content_hash == local.manifest.content_hash
    assert remote.manifest.shards == local.manifest.shards
    assert build_store(source, url).num_resumed == 60
    there, here = Store.open(url), Store.open(tmp_path / "store")
    assert [r.id for r in there] == [r.id for r in here]
    assert there.get(here[33].id).crystal.bucket_key == here[33].crystal.bucket_key
    assert len(list(there.iter_arrays(split="train"))) == 3
    assert there.damaged_shards() == {}

    import s3fs

    names = sorted(s3fs.S3FileSystem().find("crystals/my"))
    assert [n.split("/")[3] for n in names] == ["index", "manifest.json", "rejected.csv", *["shards"] * 3]


def test_workers_write_to_s3(bucket: str, tmp_path: Path, write_source: TableWriter) -> None:
    source = write_source(40)
    remote = build_store(source, f"{bucket}/store", workers=2, split="time", split_column="year")
    local = build_store(source, tmp_path / "store", split="time", split_column="year")
    assert remote.manifest.shards == local.manifest.shards


def test_a_bucket_that_is_not_there_is_named(bucket: str, write_source: TableWriter) -> None:
    with pytest.raises(StoreError, match="no store at s3://nowhere/store"):
        Store.open("s3://nowhere/store")
    with pytest.raises(StoreError, match=r"s3://nowhere/store cannot be .*bucket does not exist"):
        build_store(write_source(5), "s3://nowhere/store")


def test_without_credentials_it_says_what_is_needed(
    bucket: str, write_source: TableWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    source = write_source(5)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(StoreError, match=r"NoCredentialsError: .*AWS_ACCESS_KEY_ID.*or use a local folder"):
        build_store(source, f"{bucket}/store")
    result = CliRunner().invoke(data_app, ["build", str(source), "--out", f"{bucket}/store"])
    assert result.exit_code == 1
    assert "NoCredentialsError" in result.output
    assert "Bug" not in result.output
