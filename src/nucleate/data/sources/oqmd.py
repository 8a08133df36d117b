"""OQMD, the Open Quantum Materials Database, through its OPTIMADE interface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from nucleate.data.sources.dataset import Dataset
from nucleate.data.sources.download import DEFAULT_RETRY, RetryPolicy
from nucleate.data.sources.optimade import PAGE_LIMIT, OptimadeStructures, versioned

BASE_URL = "https://oqmd.org/optimade"
PROPERTIES = (
    "_oqmd_entry_id",
    "_oqmd_calculation_id",
    "_oqmd_icsd_id",
    "_oqmd_band_gap",
    "_oqmd_delta_e",
    "_oqmd_stability",
    "_oqmd_volume",
    "_oqmd_prototype",
    "_oqmd_spacegroup",
)
#: From OQMD's documentation; its interface does not state all of them.
UNITS: Mapping[str, str] = {
    "_oqmd_band_gap": "eV",
    "_oqmd_delta_e": "eV/atom",
    "_oqmd_stability": "eV/atom",
    "_oqmd_volume": "Å³",
}
DATASET = Dataset(
    "oqmd",
    UNITS,
    licence="CC-BY-4.0",
    url="https://oqmd.org",
    reference="https://doi.org/10.1007/s11837-013-0755-4; https://doi.org/10.1038/npjcompumats.2015.10",
)


def open_oqmd(
    spec: str,
    *,
    base_url: str = BASE_URL,
    properties: Sequence[str] = PROPERTIES,
    units: Mapping[str, str] | None = None,
    page_limit: int = PAGE_LIMIT,
    retry: RetryPolicy = DEFAULT_RETRY,
) -> OptimadeStructures:
    """The source for OQMD.

    Args:
        spec: "" for everything, or an OPTIMADE filter (``_oqmd_stability<=0 AND nelements=2``).
        base_url: another address of the same interface.
        properties: OQMD's own fields to fetch.
        units: units of further properties.
        page_limit: structures asked for at a time.
        retry: how stubbornly to ask.
    """
    filter_text = spec.strip().removeprefix("?filter=") or None
    dataset = replace(DATASET, units={**UNITS, **(units or {})})
    return OptimadeStructures(versioned(base_url), dataset, filter_text, tuple(properties), page_limit, retry)
