"""File names from ids: whatever the id, a name that every file system takes, and never the same twice."""

from __future__ import annotations

from pathlib import PureWindowsPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nucleate.data.file_names import LONGEST_STEM, FileNames, marked_stem, safe_stem

ids = st.text(max_size=300) | st.text(alphabet="aA./\\-_ :cCoOnN0", max_size=12)


def _is_safe(stem: str) -> bool:
    return (
        0 < len(stem) <= LONGEST_STEM
        and stem.isascii()
        and stem.isprintable()
        and not set(stem) & set("/\\:*?\"<>| %$&;'`~")
        and ".." not in stem
        and stem[0] not in ".-"
        and stem[-1] not in ". "
        and not PureWindowsPath(stem).is_reserved()
    )


@given(ids)
@example("../../etc/passwd")
@example("..")
@example("con.cif")
@example("LPT1")
@example("C:\\x")
@example("")
@example("a\x00b")
@example("\udcff")
@example("-rf")
@example("x" * 1000)
@example("." * 500)
def test_every_id_has_a_safe_name(record_id: str) -> None:
    assert _is_safe(safe_stem(record_id))
    assert _is_safe(marked_stem(record_id))


@given(st.lists(ids, unique=True, max_size=30))
@example(["NaCl", "NACL", "nacl"])
@example(["a/b", "a_b", "a?b", "a\\b"])
@example(["a/b", safe_stem("a/b")])
@example(["A", "a", marked_stem("a"), marked_stem("A")])
@example(["x" * 200, "x" * 201])
def test_no_two_ids_share_a_name(record_ids: list[str]) -> None:
    names = FileNames(record_ids)
    stems = [names.stem(record_id) for record_id in record_ids]
    assert len({stem.casefold() for stem in stems}) == len(record_ids)
    assert all(map(_is_safe, stems))
    again = FileNames(reversed(record_ids))
    assert [again.stem(record_id) for record_id in record_ids] == stems


@pytest.mark.parametrize("record_id", ["mp-149", "JVASP-1002", "NaCl_B1", "a.b+c=d", "0"])
def test_good_ids_stay_as_they_are(record_id: str) -> None:
    assert FileNames([record_id, "other"]).stem(record_id) == record_id
