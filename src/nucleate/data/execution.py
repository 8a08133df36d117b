"""Running the jobs of a build, or any function: in this process, on a local Dask cluster or on a running one."""

from __future__ import annotations

import logging
import signal
import threading
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from itertools import count, islice
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
    with process_pool(workers, scheduler) as pool:
        results = pool.completed(
            partial(run_job, plan), jobs, doing=lambda job: f"reading {job.task.file} (task {job.task.key})"
        )
        # Closed here: what is still out must be cancelled while the client lives.
        with closing(results):
            for _, result in results:
                yield result


@contextmanager
def process_pool(workers: int, scheduler: str | None = None) -> Iterator[ProcessPool]:
    """Processes that work at once: a local Dask cluster, or the workers of a running scheduler.

    Raises:
        StoreError: Dask is not installed, the scheduler does not answer, or the local workers do not start.
    """
    with _client(workers, scheduler) as client:
        yield ProcessPool(client, workers)


class ProcessPool:
    """Runs a function over items on the workers of a Dask client, a few per worker at a time."""

    def __init__(self, client: Any, workers: int) -> None:
        self._client, self._workers = client, workers

    def completed(
        self, function: Callable[[Any], Any], items: Iterable[Any], *, doing: Callable[[Any], str]
    ) -> Generator[tuple[Any, Any], None, None]:
        """Each item with its result, in the order in which they are done.

        Args:
            function: what to run; picklable, as are items and results.
            items: taken only as workers become free.
            doing: what a worker does with an item, in words, for the message when it dies of it.

        Raises:
            StoreError: a worker died again and again.
        """
        from distributed import KilledWorker, as_completed  # noqa: PLC0415  optional extra

        waiting = iter(items)
        threads = sum(self._client.nthreads().values()) or self._workers
        run = uuid.uuid4().hex[:8]
        numbers = count()
        out: dict[str, tuple[Any, Any]] = {}

        def submit(item: Any) -> Any:
            # A key of its own: an equal item of an earlier run on the same scheduler must not answer for this one.
            future = self._client.submit(function, item, key=f"nucleate-{run}-{next(numbers)}")
            out[future.key] = future, item
            return future

        running = as_completed([submit(item) for item in islice(waiting, JOBS_PER_WORKER * threads)])
        try:
            for future in running:
                _, item = out.pop(future.key)
                try:
                    result = future.result()
                except KilledWorker as error:
                    raise StoreError(
                        f"Workers died again and again while {doing(item)}: most often for want of memory; "
                        "repeat the command with fewer --workers, it goes on where it stopped"
                    ) from error
                for following in islice(waiting, 1):
                    running.add(submit(following))
                yield item, result
        finally:
            self._client.cancel([future for future, _ in out.values()])


@contextmanager
def _client(workers: int, scheduler: str | None) -> Iterator[Any]:
    try:
        from distributed import Client, LocalCluster  # noqa: PLC0415  optional extra
    except ImportError as error:
        raise StoreError(
            "Working with several processes needs Dask: install nucleate[cluster], or leave out --workers "
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
