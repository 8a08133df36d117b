"""What a build takes from its source: nothing from an empty folder, and no key into the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from crystal_tables import TableWriter

from nucleate.data import build, build_store
from nucleate.data.build import BuildProgress
from nucleate.data.sources import open_source
from nucleate.errors import SourceError


def _damage_first(rows: list[dict[str, Any]]) -> None:
    rows[0]["lattice"] = [0.0] * 9


def test_an_empty_folder_is_refused_before_anything_is_written(
    tmp_path: Path, write_source: TableWriter
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(SourceError, match="empty holds no files"):
        build_store(empty, tmp_path / "store")
    assert not (tmp_path / "store").exists()
    write_source(5).rename(empty / "found.parquet")
    assert build_store(empty, tmp_path / "store").num_records == 5


def test_a_key_is_never_written_down(
    tmp_path: Path, write_source: TableWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[str] = []

    def opened(spec: str, *, max_atoms: int, api_key: str, **options: Any) -> Any:
        given.append(api_key)
        return open_source(spec, max_atoms=max_atoms, **options)

    monkeypatch.setattr(build, "open_source", opened)
    key, licence = "k3y" * 9, "CC-BY-4.0"
    source, out = write_source(40, change=_damage_first), tmp_path / "store"

    def written() -> bytes:
        return b"".join(p.read_bytes() for p in out.rglob("*") if p.is_file())

    def stop(state: BuildProgress) -> None:
        if state.done == 25:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_store(source, out, source_options={"api_key": key, "licence": licence}, on_progress=stop)
    unfinished = written()
    assert key.encode() not in unfinished
    assert licence.encode() in unfinished  # negative control: other options are written and would be found
    # The key opens the door only: another one means the same store.
    report = build_store(source, out, source_options={"api_key": "another", "licence": licence})
    assert report.num_resumed == 20
    assert key.encode() not in written()
    assert b"another" not in written()
    assert report.manifest.settings["source_options"] == {"licence": licence}
    assert given == [key, "another"]
