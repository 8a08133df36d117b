"""Mean losses of a batch by name, with what they tell tables that are learned beside the network."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


class Losses(dict[str, Tensor]):
    """Losses by name; ``loss`` is what training lowers.

    Attributes:
        tables: (sums, counts) for each level table of the task, to be added up over all ranks.
    """

    def __init__(
        self, values: Mapping[str, Tensor], tables: Mapping[str, tuple[Tensor, Tensor]] | None = None
    ) -> None:
        super().__init__(values)
        self.tables: Mapping[str, tuple[Tensor, Tensor]] = tables or {}
