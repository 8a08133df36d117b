"""How often the processes of a Dask cluster look at themselves, where their cores belong to the work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

from nucleate.evaluation.workers import Workers

SETTINGS: Mapping[str, Any] = MappingProxyType(
    {
        # Frames of the running function, a hundred times a second, for a dashboard that is not served.
        "distributed.worker.profile.enabled": False,
        # Whether an event loop still turns: fifty times a second in each scheduler, nanny and worker.
        "distributed.admin.tick.interval": "1s",
        "distributed.admin.tick.limit": "30s",
        # Load and memory for the dashboard.
        "distributed.admin.system-monitor.interval": "5s",
        "distributed.admin.system-monitor.disk": False,
        # Memory of each worker, which is paused and restarted above its share: this stays, less often.
        "distributed.worker.memory.monitor-interval": "500ms",
        # Freed memory given back at once: 27 page faults for each crystal that is read, 5 % of the time.
        "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,
    }
)


@contextmanager
def little_housekeeping(workers: Workers) -> Iterator[None]:
    """Clusters that start on this machine meanwhile look at themselves seldom.

    By default scheduler, nannies and two workers take 65 ms of processor time each second while nothing is done, and
    more while the workers' threads hold the interpreter. With ``SETTINGS`` it is 14 ms. A cluster that runs already
    keeps its own settings.

    Args:
        workers: those of the run.
    """
    if workers.is_local or workers.scheduler is not None:
        yield
        return
    try:
        import dask  # noqa: PLC0415  an extra
        import distributed  # noqa: F401, PLC0415  it brings the settings that are changed here
    except ImportError:  # said by the workers when there is work for them
        yield
        return
    with dask.config.set(SETTINGS):
        yield
