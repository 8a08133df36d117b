"""Structure files as commands read them: whatever ``nucleate data build`` can read."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from nucleate.cli.errors import sentence
from nucleate.errors import NucleateError, ParseError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from nucleate.crystal import Crystal
    from nucleate.data.record import Record, Rejection


def read_structures(files: Iterable[str], max_atoms: int) -> Iterator[Record | Rejection]:
    """Everything the named files hold; a file that cannot be opened is one rejection and the rest goes on."""
    from nucleate.data.record import Rejection  # noqa: PLC0415  (loads numpy)
    from nucleate.data.sources import open_source  # noqa: PLC0415  (loads the readers)

    for file in files:
        try:
            source = open_source(file, max_atoms=max_atoms)
            for task in source.tasks():
                yield from source.read(task)
        except (NucleateError, OSError) as error:
            reason = sentence(error).removeprefix(f"{file}: ")  # a rejection names its file itself
            yield Rejection(file=file, row=None, id=None, reason=reason)


def read_crystal(file: str, *, symprec: float, max_atoms: int = 1000) -> Crystal:
    """The exact asymmetric unit of the one structure that a file holds.

    Raises:
        ParseError: the file cannot be read, or holds none or several structures.
        NucleateError: there is no such file, or its structure cannot be encoded.
    """
    from nucleate.crystal import encode  # noqa: PLC0415  (loads moyopy)
    from nucleate.data.record import Rejection  # noqa: PLC0415  (loads numpy)
    from nucleate.data.sources import open_source  # noqa: PLC0415  (loads the readers)

    source = open_source(file, max_atoms=max_atoms)
    found = list(islice((item for task in source.tasks() for item in source.read(task)), 2))
    if len(found) != 1:
        raise ParseError(
            f"{file} holds {'several structures' if found else 'no structure'}; name a file with one."
        )
    (only,) = found
    if isinstance(only, Rejection):
        raise ParseError(f"{file}: {only.reason}")
    return encode(only.structure, symprec=symprec, max_atoms=max_atoms).crystal
