"""COD, the Crystallography Open Database: by numbers, by a search, or from a local mirror."""

from __future__ import annotations

import os
import re
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nucleate.crystal.cif_block import CifTags
from nucleate.data.record import Record, Rejection, Source, Task
from nucleate.data.sources.cif_metadata import citation, first_number
from nucleate.data.sources.dataset import Dataset, DatasetSource
from nucleate.data.sources.download import DEFAULT_RETRY, RetryPolicy, get, get_json
from nucleate.data.sources.file_collection import FileCollection
from nucleate.data.sources.structure_files import StructureReader
from nucleate.errors import SourceError

BASE_URL = "https://www.crystallography.net/cod"
NUMBERS_PER_TASK = 50
_NUMBER = re.compile(r"\d{7}")
DATASET = Dataset(
    "cod",
    {"temperature": "K", "pressure": "kPa"},
    licence="CC0-1.0",
    url="https://www.crystallography.net/cod",
    reference="https://doi.org/10.1093/nar/gkr900",
)


def open_cod(
    spec: str,
    *,
    base_url: str = BASE_URL,
    units: Mapping[str, str] | None = None,
    max_atoms: int = 1000,
    retry: RetryPolicy = DEFAULT_RETRY,
) -> Source:
    """The source for entries of COD.

    Args:
        spec: seven-digit numbers (``1000041,1000050``), the folder of a mirror, an archive or file from
            one, or a search (``?el1=Na&nel=2``, parameters of
            https://www.crystallography.net/cod/search.html).
        base_url: another server of the same layout.
        units: units of further properties.
        max_atoms: largest number of atoms per cell that is read.
        retry: how stubbornly to ask.

    Raises:
        SourceError: ``spec`` is none of these.
    """
    dataset = replace(DATASET, units={**DATASET.units, **(units or {})})
    text = spec.strip()
    if text.startswith("?") and "=" in text:
        return CodEntries(base_url, dataset, query=text[1:], max_atoms=max_atoms, retry=retry)
    if os.path.exists(os.path.expanduser(text)) and text:
        reader = StructureReader(dataset, read_cod_tags, max_atoms)
        return FileCollection(os.path.expanduser(text), dataset, max_atoms=max_atoms, reader=reader)
    numbers = [number for number in re.split(r"[\s,;]+", text) if number]
    wrong = [number for number in numbers if not _NUMBER.fullmatch(number)]
    if not numbers or wrong:
        raise SourceError(
            "cod: takes seven-digit COD numbers, a search such as '?el1=Na&nel=2' or an existing folder; "
            f"got {spec!r}"
        )
    return CodEntries(base_url, dataset, numbers=tuple(numbers), max_atoms=max_atoms, retry=retry)


@dataclass(frozen=True)
class CodEntries(DatasetSource):
    """Entries of COD fetched one CIF at a time, by number or as the result of a search.

    Attributes:
        base_url: of the server.
        dataset: name, units, terms and citation.
        numbers: the entries; empty where a search gives them.
        query: parameters of the search.
        max_atoms: largest number of atoms per cell that is read.
        retry: how stubbornly to ask.
    """

    base_url: str
    dataset: Dataset
    numbers: tuple[str, ...] = ()
    query: str | None = None
    max_atoms: int = 1000
    retry: RetryPolicy = DEFAULT_RETRY

    def tasks(self) -> Iterator[Task]:
        """Groups of entries; a search is run once, here.

        Raises:
            SourceError: the server does not answer the search.
        """
        numbers: Sequence[str] = self.numbers
        if self.query is not None:
            parameters = {
                **dict(urllib.parse.parse_qsl(self.query, keep_blank_values=True)),
                "format": "json",
            }
            url = f"{self.base_url}/result?{urllib.parse.urlencode(parameters)}"
            numbers = sorted(numbers_of_result(get_json(url, policy=self.retry)))
            if not numbers:
                yield Task(key="search", file=url, count=1, problem="The search found no entries.")
        for start in range(0, len(numbers), NUMBERS_PER_TASK):
            group = tuple(numbers[start : start + NUMBERS_PER_TASK])
            details = {"numbers": group}
            yield Task(
                key=f"cod-{group[0]}-{len(group)}", file=self.base_url, count=len(group), details=details
            )

    def read(self, task: Task) -> Iterator[Record | Rejection]:
        """The crystals of one group of entries.

        Raises:
            SourceError: the server does not answer after all attempts; the group may be read again later.
        """
        if task.problem is not None:
            yield Rejection(task.file, None, None, task.problem)
            return
        reader = StructureReader(self.dataset, read_cod_tags, self.max_atoms)
        for number in task.details["numbers"]:
            url = f"{self.base_url}/{number}.cif"
            try:
                content = get(url, policy=self.retry)
            except SourceError as error:
                if "status 404" not in str(error) and "status 410" not in str(error):
                    raise
                yield Rejection(url, number, number, f"COD has no entry {number}")
                continue
            yield from reader.records(f"{number}.cif", content, file=url)


def numbers_of_result(result: Any) -> set[str]:
    """COD numbers of a search result in JSON: a list of entries whose ``file`` is the number.

    Entries marked as retracted, or as duplicates of another, are left out as COD's own pages do.

    Raises:
        SourceError: the result has another form.
    """
    if not isinstance(result, list) or not all(isinstance(entry, dict) for entry in result):
        raise SourceError("COD's search gave no list of entries; its interface may have changed")
    numbers = set()
    for entry in result:
        number = str(entry.get("file", ""))
        if not _NUMBER.fullmatch(number):
            raise SourceError(f"COD's search gave an entry without a number: {str(entry)[:120]}")
        if entry.get("status") not in ("retracted",) and not entry.get("duplicateof"):
            numbers.add(number)
    return numbers


def read_cod_tags(tags: CifTags) -> tuple[str | None, Mapping[str, Any], Mapping[str, Any]]:
    """Id, properties and provenance of a COD entry: names, temperature, pressure, R factor, citation."""
    number = tags.text("_cod_database_code")
    properties = {
        "mineral": tags.text("_chemical_name_mineral"),
        "name": tags.text("_chemical_name_systematic", "_chemical_name_common"),
        "temperature": first_number(tags, "_cell_measurement_temperature", "_diffrn_ambient_temperature"),
        "pressure": first_number(tags, "_cell_measurement_pressure", "_diffrn_ambient_pressure"),
        "r_factor": first_number(tags, "_refine_ls_R_factor_gt", "_refine_ls_R_factor_all"),
        "year": first_number(tags, "_journal_year"),
        "method": tags.text("_exptl_method") or None,
    }
    if number is None or not _NUMBER.fullmatch(number):
        return None, properties, {"reference": citation(tags)}
    provenance = {"database_id": number, "url": f"{BASE_URL}/{number}.html", "reference": citation(tags)}
    return f"cod-{number}", properties, provenance
