"""How the C library's allocator treats freed memory, for processes that belong to a run of nucleate alone."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Whether glibc now keeps the memory that the process frees, for its next arrays; False where there is no glibc.

    By default every large array is mapped from the kernel and given back when it is freed, and the next one of that
    size is filled with zeros page by page again: up to a quarter of the time of sampling, whose batches are ragged
    (docs/generator-benchmarks.md). The process then stays as large as it has been at its largest. Call it in processes
    of one's own only (commands, workers), not in a library function: it holds for everything in the process.

    Source: mallopt(3).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, -1))
