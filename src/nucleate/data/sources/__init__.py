"""Where crystals come from: one file per source, all yielding records or the reason why there is none."""

from __future__ import annotations

from nucleate.data.sources.opening import open_source

__all__ = ["open_source"]
