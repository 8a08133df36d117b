"""Arrays that are expensive to make, kept on disk."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np


def cached_arrays(
    folder: Path, key: str, build: Callable[[], Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Arrays kept as ``.npz`` in ``folder``, written in one step, built where the file is missing or damaged."""
    from nucleate.data.folder import LocalFolder  # noqa: PLC0415  (pyarrow loads when there is work)

    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in key)[:80]
    name = f"{safe}-{hashlib.blake2b(key.encode(), digest_size=8).hexdigest()}.npz"
    path = folder / name
    if path.exists():
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
                return {name: content[name] for name in content.files}
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
            path.unlink(missing_ok=True)
    arrays = {name: np.asarray(array) for name, array in build().items()}
    with LocalFolder(folder).writing(name) as scratch, scratch.open("wb") as target:
        np.savez_compressed(target, **arrays)  # type: ignore[arg-type]
    return arrays
