"""Freed memory is kept: the kernel counts the pages that a process touches for the first time."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import numpy as np
from nucleate.generation.allocator import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    print(-1)
    raise SystemExit
np.ones(8_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(8_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="page faults are counted on Linux")
def test_arrays_of_a_size_that_was_freed_need_no_new_pages() -> None:
    def faults(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, check=True)
        return int(done.stdout)

    kept = faults("keep")
    if kept < 0:
        pytest.skip("the C library is not glibc")
    assert kept < 500
    assert faults("leave") > 2_000  # negative control: 64 MB each time, in pages of 4 kB or huge ones
