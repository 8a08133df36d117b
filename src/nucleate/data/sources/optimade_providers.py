"""Addresses of registered OPTIMADE providers, looked up in the consortium's registry."""

from __future__ import annotations

import difflib
from typing import Any

from nucleate.data.sources.download import DEFAULT_RETRY, RetryPolicy, get_json
from nucleate.errors import SourceError

REGISTRY = "https://providers.optimade.org/v1/links"


def resolve_provider(provider: str, *, retry: RetryPolicy = DEFAULT_RETRY, registry: str = REGISTRY) -> str:
    """Base URL of a database: ``oqmd``, or ``alexandria/alexandria-pbe`` where a provider has several.

    The registry gives each provider's index, the index its databases; a provider's stated default is taken.

    Raises:
        SourceError: no such provider or database, or the registry does not answer; give the URL itself then.
    """
    wanted, _, database = provider.partition("/")
    providers = {str(entry["id"]): entry for entry in _links(registry, retry)}
    if wanted not in providers:
        nearest = difflib.get_close_matches(wanted, providers, 1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"it lists {', '.join(sorted(providers))}"
        raise SourceError(f"The OPTIMADE registry has no provider {wanted!r}; {hint}")
    index = _address(providers[wanted])
    if index is None:
        raise SourceError(f"The OPTIMADE provider {wanted!r} serves no database at present")
    children = {
        str(entry["id"]): entry
        for entry in _links(f"{index.rstrip('/')}/v1/links", retry)
        if entry["attributes"].get("link_type") == "child" and _address(entry)
    }
    if not database:
        database = _default(index, retry) or ""
        if database not in children and len(children) == 1:
            database = next(iter(children))
    if database not in children:
        choices = ", ".join(f"{wanted}/{child}" for child in sorted(children)) or "none"
        raise SourceError(f"The OPTIMADE provider {wanted!r} has the databases {choices}; name one of them")
    address = _address(children[database])
    assert address is not None
    return address


def _links(url: str, retry: RetryPolicy) -> list[Any]:
    answer = get_json(url, policy=retry)
    entries = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(entries, list):
        raise SourceError(f"{url} gives no OPTIMADE links")
    return [e for e in entries if isinstance(e, dict) and "id" in e and isinstance(e.get("attributes"), dict)]


def _address(entry: Any) -> str | None:
    address = entry["attributes"].get("base_url")
    if isinstance(address, dict):
        address = address.get("href")
    return address if isinstance(address, str) and address else None


def _default(index: str, retry: RetryPolicy) -> str | None:
    try:
        info = get_json(f"{index.rstrip('/')}/v1/info", policy=retry)
        return str(info["data"]["relationships"]["default"]["data"]["id"])
    except (SourceError, KeyError, TypeError):
        return None  # naming a default is optional
