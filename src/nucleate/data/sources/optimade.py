"""Any OPTIMADE provider: structures fetched page by page over its REST API (version 1.0 and later)."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nucleate.data.categories import category_of
from nucleate.data.record import Record, Rejection, Task
from nucleate.data.sources.dataset import Dataset, DatasetSource, reason_of
from nucleate.data.sources.download import DEFAULT_RETRY, RetryPolicy, check_url, get_json
from nucleate.data.sources.optimade_providers import resolve_provider
from nucleate.data.sources.optimade_structure import unit_cell_from_optimade
from nucleate.errors import SourceError

STRUCTURE_FIELDS = (
    "lattice_vectors",
    "cartesian_site_positions",
    "species",
    "species_at_sites",
    "structure_features",
    "dimension_types",
    "nsites",
)
PLAIN_FIELDS = ("chemical_formula_reduced", "last_modified")
PAGE_LIMIT = 100
#: Sorting is optional; this is how providers say that they cannot.
_CANNOT_SORT = (400, 403, 422, 500, 501)
_PLAIN_TYPES = {"float", "integer", "boolean"}


def open_optimade(
    spec: str,
    *,
    filter: str | None = None,
    properties: Sequence[str] | None = None,
    name: str | None = None,
    licence: str | None = None,
    units: Mapping[str, str] | None = None,
    page_limit: int = PAGE_LIMIT,
    retry: RetryPolicy = DEFAULT_RETRY,
) -> OptimadeStructures:
    """The source for the structures of an OPTIMADE provider.

    Args:
        spec: base URL, or id of a registered provider (``mp``, ``oqmd``, ``alexandria/alexandria-pbe``),
            either with ``?filter=...`` behind it.
        filter: OPTIMADE filter, ``elements HAS "Si" AND nelements=2``.
        properties: fields to fetch beside the structure; by default every number and flag that is the
            provider's own.
        name: short name for the provenance, by default ``optimade_`` and the provider or host.
        licence: terms of use; providers state them on their pages, not in the interface.
        units: units of properties, where the provider does not state them.
        page_limit: structures asked for at a time; providers may give fewer.
        retry: how stubbornly to ask.

    Raises:
        SourceError: no provider of this name, or an address that is not http or https.
    """
    place, _, query = spec.partition("?")
    if query:
        given = urllib.parse.parse_qs(query, strict_parsing=False).get("filter")
        filter = filter or (given[0] if given else urllib.parse.unquote(query.removeprefix("filter=")))
    if "://" in place:
        base_url, label = check_url(place), urllib.parse.urlsplit(place).hostname or place
    else:
        base_url, label = resolve_provider(place, retry=retry), place.replace("/", "_")
    dataset = Dataset(name or f"optimade_{label}", dict(units or {}), licence=licence, url=base_url)
    return OptimadeStructures(
        versioned(base_url),
        dataset,
        filter,
        None if properties is None else tuple(properties),
        page_limit,
        retry,
    )


def versioned(base_url: str) -> str:
    """The base URL with the major version that this client speaks, unless it has one."""
    base = base_url.rstrip("/")
    last = base.rsplit("/", 1)[-1]
    return base if last[:1] == "v" and last[1:2].isdigit() else f"{base}/v1"


@dataclass(frozen=True)
class OptimadeStructures(DatasetSource):
    """The structures of one OPTIMADE database that match a filter.

    Attributes:
        base_url: with its version, ``https://example.org/optimade/v1``.
        dataset: name, units, terms and citation.
        filter: OPTIMADE filter, None for all structures.
        properties: fields to fetch, None for every number and flag that is the provider's own.
        page_limit: structures asked for at a time.
        retry: how stubbornly to ask.
    """

    base_url: str
    dataset: Dataset
    filter: str | None = None
    properties: tuple[str, ...] | None = None
    page_limit: int = PAGE_LIMIT
    retry: RetryPolicy = DEFAULT_RETRY

    def tasks(self) -> Iterator[Task]:
        """Pages. Where the provider pages by offset or number they are computed, else its links are followed.

        Links are followed with the ids alone, so that no structure travels twice.

        Raises:
            SourceError: the provider does not answer, or refuses the filter.
        """
        fields, units = self._fields()
        sort, first = self._first_page()
        returned = _number(first.get("meta"), "data_returned")
        size, following = len(_entries(first)), _next_link(first)
        details = {"fields": fields, "units": units}
        start = self._url(page_limit=self.page_limit, sort=sort)
        step = _paging(following, size)
        if following is None:
            yield Task(key="page-0", file=start, count=size, details=details)
        elif step is not None and returned is not None:
            name, per_page = step
            for number, offset in enumerate(range(0, returned, size)):
                url = self._url(
                    page_limit=self.page_limit, sort=sort, **{name: offset if per_page else number + 1}
                )
                count = min(size, returned - offset)
                yield Task(key=f"page-{offset}", file=url, first=offset, count=count, details=details)
        else:
            yield from self._follow(start, size, following, details)

    def _follow(
        self, url: str, size: int, following: str | None, details: Mapping[str, Any]
    ) -> Iterator[Task]:
        first, seen = 0, {url}
        while True:
            yield Task(key=f"page-{first}", file=url, first=first, count=size, details=details)
            if following is None:
                return
            url = check_url(urllib.parse.urljoin(self.base_url + "/structures", following))
            if url in seen:
                raise SourceError(f"{self.base_url} links its pages in a circle: {url}")
            seen.add(url)
            first += size
            page = get_json(_with_parameters(url, response_fields="id"), policy=self.retry)
            size, following = len(_entries(page)), _next_link(page)
            if size == 0 and following is None:
                return

    def read(self, task: Task) -> Iterator[Record | Rejection]:
        """The structures of one page.

        Raises:
            SourceError: the provider does not answer after all attempts; the page may be read again later.
        """
        wanted = ",".join((*STRUCTURE_FIELDS, *PLAIN_FIELDS, *task.details["fields"]))
        url = _with_parameters(task.file, response_fields=wanted)
        for entry in _entries(get_json(url, policy=self.retry)):
            yield self._record(entry, task.details["units"])

    def _record(self, entry: Any, units: Mapping[str, str]) -> Record | Rejection:
        place = f"{self.base_url}/structures"
        if not isinstance(entry, dict) or "id" not in entry or not isinstance(entry.get("attributes"), dict):
            return Rejection(place, None, None, "The entry has no id or no attributes.")
        own_id, attributes = str(entry["id"]), entry["attributes"]
        try:
            structure = unit_cell_from_optimade(attributes, name=own_id)
        except Exception as error:
            # a foreign entry: whatever goes wrong is its reason, not the end
            return Rejection(place, own_id, own_id, reason_of(error), category_of(error))
        properties = {key: value for key, value in attributes.items() if key not in STRUCTURE_FIELDS}
        return self.dataset.record(
            own_id,
            structure,
            properties=properties,
            file=place,
            row=own_id,
            database_id=own_id,
            url=f"{place}/{urllib.parse.quote(own_id)}",
            units={**units, **self.dataset.units},
        )

    def _first_page(self) -> tuple[str | None, Any]:
        """How the first page was sorted (by id if the provider can), and that page, ids only."""
        try:
            return "id", get_json(
                self._url(page_limit=self.page_limit, response_fields="id", sort="id"), policy=self.retry
            )
        except SourceError as error:
            if not any(f"status {code}" in str(error) for code in _CANNOT_SORT):
                raise
        return None, get_json(self._url(page_limit=self.page_limit, response_fields="id"), policy=self.retry)

    def _fields(self) -> tuple[tuple[str, ...], dict[str, str]]:
        """Further fields to fetch, and the units the provider states for them."""
        try:
            info = get_json(f"{self.base_url}/info/structures", policy=self.retry)
        except SourceError:
            if self.properties is None:
                raise
            info = {}  # the fields are named, only their units stay unknown
        described = info.get("data", {}).get("properties", {}) if isinstance(info, dict) else {}
        described = {name: entry for name, entry in described.items() if isinstance(entry, dict)}
        wanted = self.properties
        if wanted is None:
            wanted = tuple(
                name
                for name, entry in described.items()
                if name.startswith("_") and entry.get("type") in _PLAIN_TYPES
            )
        units = {name: described[name].get("unit") for name in wanted if name in described}
        return wanted, {name: unit for name, unit in units.items() if isinstance(unit, str) and unit}

    def _url(self, **parameters: Any) -> str:
        given = {"filter": self.filter, **parameters}
        return _with_parameters(f"{self.base_url}/structures", **given)


def _with_parameters(url: str, **parameters: Any) -> str:
    """The address with these query parameters set; None leaves one out."""
    parts = urllib.parse.urlsplit(url)
    query = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
    query.update({name: str(value) for name, value in parameters.items() if value is not None})
    return urllib.parse.urlunsplit(parts._replace(query=urllib.parse.urlencode(query)))


def _entries(page: Any) -> list[Any]:
    entries = page.get("data") if isinstance(page, dict) else None
    if not isinstance(entries, list):
        raise SourceError("The provider's answer is no OPTIMADE list of structures (it has no 'data')")
    return entries


def _next_link(page: Any) -> str | None:
    links = page.get("links")
    link = links.get("next") if isinstance(links, dict) else None
    if isinstance(link, dict):
        link = link.get("href")
    return link if isinstance(link, str) and link else None


def _paging(following: str | None, size: int) -> tuple[str, bool] | None:
    """Parameter by which the provider pages, and whether it counts structures; None if only links tell."""
    if following is None or size == 0:
        return None
    query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(following).query))
    if query.get("page_offset") == str(size):
        return "page_offset", True
    if query.get("page_number") == "2":
        return "page_number", False
    return None


def _number(meta: Any, key: str) -> int | None:
    value = meta.get(key) if isinstance(meta, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None
