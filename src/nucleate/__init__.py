"""nucleate grows crystals: symmetry, composition and known physics are exact in the encoding."""

from __future__ import annotations

__version__ = "0.1.0"
