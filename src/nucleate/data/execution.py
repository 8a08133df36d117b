"""Running the jobs of a build: in this process, on a local Dask cluster or on a running one."""

from __future__ import annotations

import logging
import signal
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import Any

from nucleate.data.build_job import BuildPlan, Job, JobResult, run_job
from nucleate.errors import StoreError

# Jobs that wait at the scheduler per worker: enough to keep it busy, few enough that nothing piles up.
JOBS_PER_WORKER = 2
CONNECT_SECONDS = 20


def run_in_process(
    plan: BuildPlan, jobs: Iterable[Job], on_input: Callable[[bool], None]
) -> Iterator[JobResult]:
    """Results of the jobs one after the other, done in this process."""
    for job in jobs:
        yield run_job(plan, job, on_input)


def run_on_dask(
    plan: BuildPlan, jobs: Iterable[Job], *, workers: int, scheduler: str | None
) -> Iterator[JobResult]:
    """Results of the jobs as they are done on a Dask cluster; only a few per worker are out at a time.

    Args:
        plan: what the whole build shares.
        jobs: what to do.
        workers: processes of the local cluster, used when no scheduler is given.
        scheduler: address of a running scheduler, ``tcp://host:8786``; its workers must see the source and
            the store under the same paths and have nucleate installed.

    Raises:
        StoreError: Dask is not installed, the scheduler does not answer, or a worker died again and again.
    """
    with ExitStack() as stack:
        client = stack.enter_context(_client(workers, scheduler))
        from distributed import KilledWorker, as_completed  # noqa: PLC0415  optional extra

        waiting = iter(jobs)
        threads = sum(client.nthreads().values()) or workers
        build = uuid.uuid4().hex[:8]
        out: dict[str, tuple[Any, Job]] = {}

        def submit(job: Job) -> Any:
            # A key of its own: an equal job of an earlier build on the same scheduler must not answer for
            # this one.
            future = client.submit(run_job, plan, job, key=f"nucleate-build-{build}-{job.number}")
            out[future.key] = future, job
            return future

        running = as_completed([submit(job) for job in islice(waiting, JOBS_PER_WORKER * threads)])
        try:
            for future in running:
                _, job = out.pop(future.key)
                try:
                    result = future.result()
                except KilledWorker as error:
                    raise StoreError(
                        f"Workers died again and again while reading {job.task.file} (task {job.task.key}): "
                        "most often for want of memory; repeat the command with fewer --workers, it goes on "
                        "where it stopped"
                    ) from error
                following = next(waiting, None)
                if following is not None:
                    running.add(submit(following))
                yield result
        finally:
            client.cancel([future for future, _ in out.values()])


@contextmanager
def _client(workers: int, scheduler: str | None) -> Iterator[Any]:
    try:
        from distributed import Client, LocalCluster  # noqa: PLC0415  optional extra
    except ImportError as error:
        raise StoreError(
            "Building with several workers needs Dask: install nucleate[cluster], or leave out --workers "
            "and --scheduler"
        ) from error
    if scheduler is not None:
        try:
            client = Client(scheduler, timeout=CONNECT_SECONDS)
        except (OSError, ValueError) as error:
            raise StoreError(f"No Dask scheduler answers at {scheduler}: {error}") from error
        with client:
            yield client
        return
    try:
        with _deaf_to_ctrl_c():
            cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                dashboard_address=None,
                # Without a port of its own choice it takes 8787, which a cluster next door may have.
                scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
                silence_logs=logging.ERROR,
            )
    except RuntimeError as error:
        # Each worker imports the script that starts it: one that builds when imported never ends starting.
        raise StoreError(
            f"The {workers} local workers did not start ({error}) In a script, build under "
            "`if __name__ == '__main__':`"
        ) from error
    with cluster, Client(cluster) as client:
        yield client


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Processes started inside ignore Ctrl-C, which a terminal sends to all: this one ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
