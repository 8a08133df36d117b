"""A batch cluster from a file: dask-jobqueue asks its queue for workers, and gives them back at the end."""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from nucleate.errors import ConfigError

_CLASSES = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "lsf": "LSFCluster",
    "sge": "SGECluster",
    "oar": "OARCluster",
    "moab": "MoabCluster",
    "htcondor": "HTCondorCluster",
    "local": "LocalCluster",
}
_OWN = ("system", "jobs")


@contextmanager
def batch_cluster(path: str | os.PathLike[str]) -> Iterator[str]:
    """Address of the scheduler of a cluster whose workers come from a batch queue; they end with the context.

    The file is flat YAML: ``system`` (slurm, pbs, lsf, sge, oar, moab, htcondor, or local for processes of this
    machine), ``jobs`` (how many to ask for), and the arguments of dask-jobqueue's cluster (``cores``, ``processes``,
    ``memory``, ``queue``, ``account``, ``walltime``, ``job_extra_directives``, ``job_script_prologue``, ...). Workers
    that the queue has not started yet are not waited for: work begins with the first.

    Args:
        path: the file.

    Raises:
        ConfigError: it cannot be read, a key is missing or unknown, or dask-jobqueue is not installed.
    """
    system, jobs, options = read_cluster(path)
    cluster = make_cluster(path, system, options)
    with cluster:
        cluster.scale(jobs=jobs)
        yield cluster.scheduler_address


def read_cluster(path: str | os.PathLike[str]) -> tuple[str, int, dict[str, Any]]:
    """(system, number of jobs, arguments of dask-jobqueue) that a file names.

    Raises:
        ConfigError: it cannot be read, or a key is missing or cannot be.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{os.fspath(path)} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigError(
            f"{os.fspath(path)} must hold NAME: VALUE lines such as 'system: slurm' and 'jobs: 8'"
        )
    system, jobs = content.get("system"), content.get("jobs")
    if system not in _CLASSES:
        raise ConfigError(f"{os.fspath(path)}: system is one of {', '.join(_CLASSES)}, got {system!r}")
    if not isinstance(jobs, int) or isinstance(jobs, bool) or jobs < 1:
        raise ConfigError(
            f"{os.fspath(path)}: jobs is the number of jobs to ask for, at least 1; got {jobs!r}"
        )
    for name in ("cores", "memory"):
        if name not in content:
            raise ConfigError(
                f"{os.fspath(path)}: {name} of one job is missing, such as 'cores: 8' and 'memory: 32GB'"
            )
    return system, jobs, {name: value for name, value in content.items() if name not in _OWN}


def make_cluster(path: str | os.PathLike[str], system: str, options: dict[str, Any]) -> Any:
    """dask-jobqueue's cluster of a system.

    Raises:
        ConfigError: dask-jobqueue is not installed, or does not take an option.
    """
    try:
        import dask_jobqueue  # noqa: PLC0415  an extra
        import dask_jobqueue.local  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ConfigError(f"--cluster needs {error.name}: pip install nucleate[cluster]") from error
    home = dask_jobqueue.local if system == "local" else dask_jobqueue
    kind = getattr(home, _CLASSES[system])
    known = _options(kind)
    for name in options:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"there are {', '.join(sorted(known))}"
            raise ConfigError(f"{os.fspath(path)}: {kind.__name__} has no option {name!r}; {hint}")
    # Without a port of its own choice the scheduler takes 8787, which a cluster next door may have.
    options = {"scheduler_options": {"dashboard_address": ":0"}, **options}
    try:
        return kind(**options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{os.fspath(path)}: {kind.__name__} refuses its options: {error}") from error


def _options(kind: Any) -> set[str]:
    """Arguments of a cluster and of its jobs."""
    found: set[str] = set()
    for owner in (*kind.__mro__, *kind.job_cls.__mro__):
        if owner.__init__ is not object.__init__ and owner.__module__.startswith("dask_jobqueue"):
            found |= set(inspect.signature(owner.__init__).parameters)
    return found - {
        "self",
        "scheduler",
        "name",
        "args",
        "kwargs",
        "job_kwargs",
        "base_class_kwargs",
        "job_cls",
    }
