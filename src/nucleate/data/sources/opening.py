"""From what a user types (a path, a glob, ``jarvis:dft_3d``, ``optimade:URL``) to what reads it."""

from __future__ import annotations

import difflib
import importlib
import inspect
from os import PathLike, fspath
from typing import Any

from nucleate.data.record import Source
from nucleate.errors import SourceError

# Modules are named here and imported when asked for: a command line that only prints its help needs none of
# them.
SCHEMES: dict[str, tuple[str, str]] = {
    "jarvis": ("nucleate.data.sources.jarvis", "open_jarvis"),
    "mp": ("nucleate.data.sources.materials_project", "open_materials_project"),
    "cod": ("nucleate.data.sources.cod", "open_cod"),
    "icsd": ("nucleate.data.sources.icsd", "open_icsd"),
    "optimade": ("nucleate.data.sources.optimade", "open_optimade"),
    "oqmd": ("nucleate.data.sources.oqmd", "open_oqmd"),
}
FILES = ("nucleate.data.sources.file_collection", "open_files")


def open_source(spec: str | PathLike[str], *, max_atoms: int | None = None, **options: Any) -> Source:
    """The source that ``spec`` names, opened without reading more than its type.

    Args:
        spec: a file, folder, archive or glob pattern, or ``scheme:rest`` with one of the schemes

            - ``jarvis:dft_3d`` (any set of ``nucleate.data.sources.jarvis.DATASETS``) or
            ``jarvis:path/to/file.zip``;
            - ``mp:`` (everything), ``mp:mp-149,mp-13`` or ``mp:Li-Fe-O`` (a chemical system);
            - ``cod:1000041,1000050``, ``cod:path/to/mirror`` or ``cod:?el1=Na&nel=2`` (a search);
            - ``icsd:FOLDER`` of exported CIF files;
            - ``optimade:PROVIDER`` or ``optimade:URL``, both also with ``?filter=...``;
            - ``oqmd:`` or ``oqmd:FILTER`` (an OPTIMADE filter).
        max_atoms: largest number of atoms per cell that is read, for the sources that expand symmetry
            while reading (CIF) or state their size first (POSCAR); None leaves their default of 1000.
        options: keyword arguments of the function that opens this kind of source, such as ``name``,
            ``units``, ``licence`` or ``id_column`` for files.

    Raises:
        SourceError: no such file or scheme, or an option that this kind of source does not have.
    """
    text = fspath(spec)
    scheme, colon, rest = text.partition(":")
    if colon and scheme.lower() in SCHEMES:
        module, function = SCHEMES[scheme.lower()]
    else:
        (module, function), rest = FILES, text
    opener = getattr(importlib.import_module(module), function)
    known = [name for name, p in inspect.signature(opener).parameters.items() if p.kind is p.KEYWORD_ONLY]
    for option in options:
        if option not in known:
            nearest = difflib.get_close_matches(option, known, 1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"it knows {', '.join(known)}."
            raise SourceError(f"The source {text!r} has no option {option!r}; {hint}")
    if max_atoms is not None and "max_atoms" in known:
        options["max_atoms"] = max_atoms
    return opener(rest, **options)
