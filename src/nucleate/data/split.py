"""Splits of a store: a record is in train, val or test by a rule that does not depend on its neighbours.

Random, formula and prototype splits hash (seed, key): the same record is in the same split whatever else is
in the store, in whatever order it was built, and all records of one key stay together. The time split cuts
the sorted dates once all of them are known; the given split takes a column as it stands.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from nucleate.errors import StoreError

if TYPE_CHECKING:
    from nucleate.crystal import Crystal

METHODS = ("random", "formula", "prototype", "time", "given")
SPLIT_NAMES = ("train", "val", "test")
UNASSIGNED = "unassigned"


@dataclass(frozen=True)
class SplitRule:
    """How records are divided.

    Attributes:
        method: ``random`` (by id), ``formula`` (by reduced formula), ``prototype`` (by prototype key),
            ``time`` (oldest to newest by a date or year), ``given`` (a property says it).
        seed: another seed gives another random, formula or prototype split.
        fractions: shares of train, val and test.
        column: property that holds the date (``time``) or the split (``given``).
    """

    method: str = "random"
    seed: int = 0
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    column: str | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise StoreError(f"There is no split {self.method!r}: choose one of {', '.join(METHODS)}")
        shares = self.fractions
        if (
            len(shares) != 3
            or not all(0 <= f <= 1 for f in shares)
            or not math.isclose(sum(shares), 1, abs_tol=1e-9)
        ):
            raise StoreError(
                "The fractions of train, val and test must be three numbers from 0 to 1 that add up to 1, "
                f"got {shares}"
            )
        if self.method == "time" and self.column is None:
            raise StoreError(
                "A time split needs the property that holds the date or year: name it with split_column "
                "(--split-column)"
            )

    @property
    def known_at_once(self) -> bool:
        """Whether a record's split follows from the record alone."""
        return self.method != "time"

    def to_json(self) -> dict[str, Any]:
        """The rule as it stands in the manifest."""
        return {**asdict(self), "fractions": list(self.fractions)}

    def assign(self, record_id: str, crystal: Crystal, properties: Mapping[str, Any]) -> str:
        """Name of the record's split; ``unassigned`` until dates are known and where the column is empty."""
        if self.method == "given":
            value = properties.get(self.column or "split")
            return UNASSIGNED if value is None or str(value).strip() == "" else str(value).strip()
        if self.method == "time":
            return UNASSIGNED
        if self.method == "random":
            key = record_id
        elif self.method == "formula":
            key = crystal.formula
        else:
            key = crystal.prototype_key
        return self.by_hash(key)

    def by_hash(self, key: str) -> str:
        """Split of all records with this key: the hash of (method, seed, key) as a number from 0 to 1."""
        text = f"{self.method}\x1f{self.seed}\x1f{key}".encode()
        place = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") / 2.0**64
        train, val, _ = self.fractions
        return SPLIT_NAMES[0] if place < train else SPLIT_NAMES[1] if place < train + val else SPLIT_NAMES[2]


def as_day(value: Any) -> float:
    """A date as days since the year 0, a bare year as its first day; NaN where it is neither."""
    if isinstance(value, bool) or value is None:
        return math.nan
    if isinstance(value, int | float):
        return float(value) * 365.2425 if math.isfinite(value) and 0 < value < 10_000 else math.nan
    text = str(value).strip()
    try:
        return as_day(int(text))
    except ValueError:
        pass
    for form in ("%Y-%m-%d", "%Y-%m", "%Y/%m/%d"):
        try:
            return _days(datetime.strptime(text, form).replace(tzinfo=UTC))
        except ValueError:
            continue
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return math.nan
    return _days(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def _days(moment: datetime) -> float:
    """Days on the scale on which a year is 365.2425 days, exact at each new year."""
    moment = moment.astimezone(UTC)
    first, after = date(moment.year, 1, 1), date(moment.year + 1, 1, 1) if moment.year < 9999 else date.max
    elapsed = (moment - datetime(moment.year, 1, 1, tzinfo=UTC)).total_seconds() / 86400
    return (moment.year + elapsed / (after - first).days) * 365.2425


def time_limits(days: np.ndarray, fractions: tuple[float, float, float]) -> tuple[float, float]:
    """First days of val and of test: the oldest records train, the newest test, no day in two splits.

    The limits are those whose shares are nearest to the fractions from below: a day shared by many records
    moves as a whole into the later split.
    """
    known = np.sort(days[np.isfinite(days)])
    if len(known) == 0:
        raise StoreError(
            "The time split found no record with a date or year: check split_column (--split-column)"
        )
    limits = []
    for share in (fractions[0], fractions[0] + fractions[1]):
        place = round(share * len(known))
        limits.append(float(known[place]) if place < len(known) else math.inf)
    return limits[0], limits[1]


def split_by_time(day: float, limits: tuple[float, float]) -> str:
    """Split of a record of this day; ``unassigned`` where the day is unknown."""
    if not math.isfinite(day):
        return UNASSIGNED
    return SPLIT_NAMES[0] if day < limits[0] else SPLIT_NAMES[1] if day < limits[1] else SPLIT_NAMES[2]
