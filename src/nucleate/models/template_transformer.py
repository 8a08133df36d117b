"""The template network: group, then orbits one by one, as a set without order."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from nucleate.crystal.tables import NUM_GROUPS, NUM_POSITIONS, group_arrays
from nucleate.errors import ConfigError
from nucleate.models.charge_balance import Balance, ChargeBalance
from nucleate.models.network_sizes import check_multiples, check_signs
from nucleate.models.site_features import NUM_SITE_FEATURES, position_features
from nucleate.models.transformer_layer import TransformerLayer
from nucleate.physics.elements import NUM_ELEMENTS, element_features
from nucleate.shapes import Bool, Float, Int

SWITCHES = ("element_reuse", "charge_balance")
"""Parts of a ``TemplateTransformer`` that weights of before do not have; what they add starts at zero."""

MAX_UNITS = 32
"""Largest number of formula units per primitive cell that ``TemplateTransformer.units_logits`` tells apart, and most
that a condition considers."""

_NUM_AMOUNT_FEATURES = 6
_NUM_FIT_FEATURES = 5
_MOST_ELEMENTS = 8
"""More different elements than this are not told apart by their number."""


@dataclass(frozen=True)
class TemplateTransformerConfig:
    """Sizes of a ``TemplateTransformer``.

    Attributes:
        width: channels of every token.
        layers: transformer layers.
        heads: attention heads.
        num_sources: data sources told apart by a token; 0 is the unknown source.
        dropout: probability of dropping an activation while training.
        element_reuse: a score of its own for every element that is already placed, and a query that knows how many
            there are: how many elements a crystal has need not be learned through 103 separate logits.
        charge_balance: the probability that the composition is neutral, now and with every possible next orbit.
    """

    width: int = 128
    layers: int = 4
    heads: int = 8
    num_sources: int = 8
    dropout: float = 0.1
    element_reuse: bool = True
    charge_balance: bool = True

    def __post_init__(self) -> None:
        check_signs(self, may_be_zero=("dropout",))
        if self.dropout >= 1:
            raise ConfigError(f"dropout must be below 1, got {self.dropout}")

    def check(self) -> None:
        """Whether there can be a network of these sizes; some that are asked for on top of weights are no whole.

        Raises:
            ConfigError: ``width`` is no multiple of ``heads``.
        """
        check_multiples(self, ("width",))


@dataclass(frozen=True, eq=False)
class TemplateBatch:
    """What is known of several crystals' templates, padded.

    Attributes:
        space_group_number: group of each crystal, 0 where it is not known yet.
        source: data source token.
        target_elements: atomic numbers of the composition tokens, 0 for padding.
        target_counts: atoms per primitive cell of each, 0 where the element is wanted but its number is open.
        elements_closed: whether no elements but ``target_elements`` may occur.
        total_atoms: atoms per primitive cell, 0 where open.
        positions: row of each placed orbit's position among all 1,731, -1 for padding.
        elements: element of each placed orbit, 0 for padding.
    """

    space_group_number: Int[Tensor, "n"]
    source: Int[Tensor, "n"]
    target_elements: Int[Tensor, "n targets"]
    target_counts: Int[Tensor, "n targets"]
    elements_closed: Bool[Tensor, "n"]
    total_atoms: Int[Tensor, "n"]
    positions: Int[Tensor, "n orbits"]
    elements: Int[Tensor, "n orbits"]

    def __len__(self) -> int:
        return len(self.source)

    @property
    def num_orbits(self) -> Int[Tensor, "n"]:
        """Orbits placed so far."""
        return (self.positions >= 0).sum(dim=1)

    def to(self, device: torch.device | str) -> TemplateBatch:
        """The batch on another device."""
        return TemplateBatch(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


@dataclass(frozen=True, eq=False)
class TemplateStates:
    """What the network knows after some numbers of orbits: one state per crystal and step.

    Attributes:
        state: hidden state of each step.
        targets: hidden state of each composition token, the same at every step.
        placed: atoms per primitive cell placed of each target element at each step.
        own_elements: different elements of the crystal's orbits, 0 for padding.
        own_placed: atoms placed of each of them at each step.
        balance: charge balance of each step, zeros for steps beyond the orbits; None without ``charge_balance``.
    """

    state: Float[Tensor, "n steps width"]
    targets: Float[Tensor, "n targets width"]
    placed: Float[Tensor, "n steps targets"]
    own_elements: Int[Tensor, "n own"]
    own_placed: Float[Tensor, "n steps own"]
    balance: Balance | None


class TemplateTransformer(nn.Module):
    """Next-orbit probabilities of a growing set of orbits, given the group and as much composition as is known.

    Three kinds of tokens share the layers: the context (crystal and composition), which sees itself; orbits, each of
    which sees the context and itself but no other orbit; and one query per step, which sees the context and the
    orbits placed so far. So a query's state is a function of the *set* of placed orbits, exactly, and all steps of a
    crystal are computed in one pass. A query starts from sums over the placed orbits and over the atoms of each
    element that are still to place, so that counting needs not be learned. The state gives the logits of the next
    orbit's Wyckoff position (or the end) and, for a position, of its element. Reading the context alone, with
    the group masked, gives the logits of the group and of the number of formula units.
    """

    element_table: Tensor
    site_table: Tensor
    multiplicity: Tensor
    position_start: Tensor

    def __init__(self, config: TemplateTransformerConfig) -> None:
        super().__init__()
        config.check()
        self.config = config
        width = config.width
        features = torch.tensor(element_features(list(range(1, NUM_ELEMENTS + 1))), dtype=torch.float32)
        rows = torch.cat([torch.zeros(1, features.shape[1]), features])
        self.register_buffer("element_table", rows, persistent=False)
        sites = position_features(torch.device("cpu"), torch.float32)
        rows = torch.cat([sites, torch.zeros(1, NUM_SITE_FEATURES)])
        self.register_buffer("site_table", rows, persistent=False)
        sizes = torch.tensor(group_arrays()["num_images"].copy(), dtype=torch.float32)
        self.register_buffer("multiplicity", torch.cat([sizes, torch.zeros(1)]), persistent=False)
        starts = torch.tensor(group_arrays()["position_start"].copy())
        self.register_buffer("position_start", starts, persistent=False)
        self.group_embedding = nn.Embedding(NUM_GROUPS + 1, width)
        self.source_embedding = nn.Embedding(config.num_sources, width)
        self.element_embedding = nn.Embedding(NUM_ELEMENTS + 1, width)
        self.element_linear = nn.Linear(features.shape[1], width, bias=False)
        self.position_embedding = nn.Embedding(NUM_POSITIONS + 1, width)
        self.position_linear = nn.Linear(NUM_SITE_FEATURES, width)
        self.crystal_amount = nn.Linear(_NUM_AMOUNT_FEATURES + 1, width)
        self.target_amount = nn.Linear(_NUM_AMOUNT_FEATURES, width)
        self.step_amount = nn.Linear(_NUM_AMOUNT_FEATURES, width)
        self.step_total = nn.Linear(_NUM_AMOUNT_FEATURES + 2, width)
        self.step_elements = nn.Linear(width, width, bias=False)
        self.step_orbits = nn.Linear(width, width, bias=False)
        self.kind = nn.Embedding(4, width)
        self.layers = nn.ModuleList(
            TransformerLayer(width, config.heads, dropout=config.dropout) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(width)
        self.group_head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, NUM_GROUPS))
        self.units_head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, MAX_UNITS))
        self.end = nn.Linear(width, 1)
        self.position_query = nn.Linear(width, 2 * width)
        self.position_key = nn.Linear(width, 2 * width)
        self.position_score = nn.Linear(width, 1)
        self.element_state = nn.Linear(width, 2 * width)
        self.element_position = nn.Linear(width, 2 * width)
        self.element_logit = nn.Linear(width, NUM_ELEMENTS)
        self.target_key = nn.Linear(width, width)
        self.target_fit = nn.Linear(_NUM_FIT_FEATURES, width)
        self.target_score = nn.Linear(width, 1)
        if config.element_reuse:
            self.step_kinds = nn.Embedding(_MOST_ELEMENTS + 1, width)
            self.own_state = nn.Linear(width, width)
            self.own_position = nn.Linear(width, width, bias=False)
            self.own_element = nn.Linear(width, width, bias=False)
            self.own_amount = nn.Linear(_NUM_AMOUNT_FEATURES, width, bias=False)
            self.own_score = nn.Linear(width, 1)
            for part in (self.step_kinds, self.own_score):
                nn.init.zeros_(part.weight)
            nn.init.zeros_(self.own_score.bias)
        self.charge = ChargeBalance(width) if config.charge_balance else None
        for embedding in (self.group_embedding, self.source_embedding, self.element_embedding, self.kind):
            nn.init.normal_(embedding.weight, std=0.5)
        nn.init.normal_(self.position_embedding.weight, std=0.2)

    # ---- tokens --------------------------------------------------------------------------------------------

    def _position_tokens(self, positions: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch width"]:
        return self.position_embedding(positions) + self.position_linear(self.site_table[positions])

    def _element_tokens(self, elements: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch width"]:
        return self.element_embedding(elements) + self.element_linear(self.element_table[elements])

    def _context(self, batch: TemplateBatch) -> tuple[Tensor, Bool[Tensor, "n tokens"]]:
        """Tokens of crystal and composition, and which of them are real."""
        dtype = self.site_table.dtype
        total, counts = batch.total_atoms.to(dtype), batch.target_counts.to(dtype)
        closed = batch.elements_closed.to(dtype)[:, None]
        crystal = (
            self.group_embedding(batch.space_group_number)
            + self.source_embedding(batch.source)
            + self.crystal_amount(torch.cat([_amounts(total, total, total > 0), closed], dim=1))
            + self.kind.weight[0]
        )
        whole = counts.sum(dim=1, keepdim=True)
        targets = (
            self._element_tokens(batch.target_elements)
            + self.target_amount(_amounts(counts, whole.expand_as(counts), counts > 0))
            + self.kind.weight[1]
        )
        if self.charge is not None:
            known = batch.elements_closed & ((counts > 0) | (batch.target_elements == 0)).all(dim=1)
            of_crystal, of_targets = self.charge.of_composition(batch.target_elements, counts, known)
            crystal, targets = crystal + of_crystal, targets + of_targets
        real = torch.cat([torch.ones_like(batch.elements_closed)[:, None], batch.target_elements > 0], dim=1)
        return torch.cat([crystal[:, None], targets], dim=1), real

    def _encode(self, tokens: Tensor, visible: Bool[Tensor, "n tokens tokens"]) -> Tensor:
        for layer in self.layers:
            tokens = layer(tokens, visible)
        return self.norm(tokens)

    # ---- readings ------------------------------------------------------------------------------------------

    def _crystal_state(self, batch: TemplateBatch) -> Float[Tensor, "n width"]:
        """State of the crystal token with the group masked and no orbits."""
        unknown = torch.zeros_like(batch.space_group_number)
        empty = batch.positions[:, :0]
        open_group = TemplateBatch(
            unknown,
            batch.source,
            batch.target_elements,
            batch.target_counts,
            batch.elements_closed,
            batch.total_atoms,
            empty,
            empty,
        )
        tokens, real = self._context(open_group)
        visible = real[:, None, :].expand(-1, real.shape[1], -1)
        return self._encode(tokens, visible)[:, 0]

    def group_logits(self, batch: TemplateBatch) -> Float[Tensor, "n groups"]:
        """Log odds of every space group (column number - 1) given composition and source, the group not used."""
        return self.group_head(self._crystal_state(batch))

    def units_logits(self, batch: TemplateBatch) -> Float[Tensor, "n units"]:
        """Log odds of the number of formula units per primitive cell (column units - 1), the group not used.

        ``target_counts`` are those of one formula unit and ``total_atoms`` is 0.
        """
        return self.units_head(self._crystal_state(batch))

    def forward(self, batch: TemplateBatch, seen: Int[Tensor, "n steps"] | None = None) -> TemplateStates:
        """One state per crystal and step: step s has seen the first ``seen[:, s]`` orbits, in no order.

        Args:
            batch: crystals with a known group.
            seen: orbits seen at each step; by default 0, 1, ... up to all of them.
        """
        context, real = self._context(batch)
        n = len(batch)
        orbit_real = batch.positions >= 0
        num_orbits = batch.positions.shape[1]
        if seen is None:
            seen = torch.arange(num_orbits + 1, device=context.device).expand(n, -1)
        positions = torch.where(orbit_real, batch.positions, NUM_POSITIONS)
        sizes = self.multiplicity[positions]
        total = batch.total_atoms.to(sizes.dtype)[:, None]
        orbits = (
            self._position_tokens(positions)
            + self._element_tokens(batch.elements)
            + self.target_amount(_amounts(sizes, total.expand_as(sizes), orbit_real))
            + self.kind.weight[2]
        )
        index = torch.arange(num_orbits, device=context.device)
        in_step = (index < seen[:, :, None]) & orbit_real[:, None, :]
        # Atoms are counted in float64, which mixed precision leaves alone: 257 is not a bfloat16 number.
        counting = in_step.double()
        of_target = sizes[:, :, None] * (batch.elements[:, :, None] == batch.target_elements[:, None, :])
        placed = (counting @ of_target.double()).to(sizes.dtype)
        wanted = batch.target_counts.to(sizes.dtype)[:, None, :]
        left = self.step_amount(
            _amounts(wanted - placed, wanted.expand_as(placed), (wanted > 0).expand_as(placed))
        )
        left = nn.functional.gelu(left + self._element_tokens(batch.target_elements)[:, None])
        left = (left * (batch.target_elements > 0)[:, None, :, None]).sum(dim=2)
        atoms = (counting @ sizes[:, :, None].double()).to(sizes.dtype)
        of_all = total[:, :, None].expand_as(atoms)
        numbers = torch.cat(
            [
                _amounts(of_all - atoms, of_all, of_all > 0)[:, :, 0],
                torch.log1p(atoms),
                torch.log1p(counting.sum(dim=2, keepdim=True)).to(sizes.dtype),
            ],
            dim=2,
        )
        queries = (
            context[:, :1]
            + self.step_total(numbers)
            + self.step_elements(left)
            + self.step_orbits(in_step.to(orbits.dtype) @ nn.functional.gelu(orbits))
            + self.kind.weight[3]
        )
        own = _different_elements(batch.elements)
        of_own = sizes[:, :, None] * (batch.elements[:, :, None] == own[:, None, :])
        own_placed = (counting @ of_own.double()).to(sizes.dtype) * (own > 0)[:, None, :]
        if self.config.element_reuse:
            kinds = (own_placed > 0).sum(dim=2).clamp(max=_MOST_ELEMENTS)
            queries = queries + self.step_kinds(kinds)
        balance = None
        if self.charge is not None:
            balance = self.charge.growing(own, own_placed, seen <= batch.num_orbits[:, None])
            queries = queries + self.charge.of_step(balance)
        tokens = torch.cat([context, orbits, queries], dim=1)
        visible = _visibility(real, in_step)
        encoded = self._encode(tokens, visible)
        first = context.shape[1]
        return TemplateStates(
            encoded[:, first + num_orbits :], encoded[:, 1:first], placed, own, own_placed, balance
        )

    def position_logits(
        self, states: TemplateStates, space_group_number: Int[Tensor, "n"]
    ) -> Float[Tensor, "n steps choices"]:
        """Log odds of the end (column 0) and of each Wyckoff position (column 1 + index), -inf beyond the group's."""
        start = self.position_start[space_group_number - 1]
        count = self.position_start[space_group_number] - start
        index = torch.arange(int(count.max()), device=start.device)
        real = index < count[:, None]
        keys = self.position_key(
            self._position_tokens(torch.where(real, start[:, None] + index, NUM_POSITIONS))
        )
        key, key_hidden = keys.chunk(2, dim=-1)
        query, query_hidden = self.position_query(states.state).chunk(2, dim=-1)
        hidden = nn.functional.gelu(query_hidden[:, :, None] + key_hidden[:, None])
        scores = query @ key.mT / self.config.width**0.5 + self.position_score(hidden)[..., 0]
        exact = self.multiplicity.dtype
        end, scores = self.end(states.state).to(exact), scores.to(exact)
        if self.charge is not None and states.balance is not None:
            atoms = self.multiplicity[torch.where(real, start[:, None] + index, NUM_POSITIONS)].long()
            end = end + self.charge.end_scores(states.balance, states.state)
            scores = scores + self.charge.position_scores(states.balance, states.state, atoms)
        return torch.cat([end, scores.masked_fill(~real[:, None], -torch.inf)], dim=2)

    def element_logits(
        self,
        states: TemplateStates,
        batch: TemplateBatch,
        *,
        crystals: Int[Tensor, "pairs"],
        steps: Int[Tensor, "pairs"],
        positions: Int[Tensor, "pairs"],
        charge_weights: Float[Tensor, "pairs"] | None = None,
    ) -> Float[Tensor, "pairs elements"]:
        """Log odds of the element (column z - 1) of an orbit on a position, for chosen (crystal, step, position).

        Args:
            states: what ``forward`` returned for the batch.
            batch: the crystals.
            crystals: row in the batch.
            steps: step of that crystal.
            positions: row of the position among all 1,731.
            charge_weights: how often what charge balance says is counted; once by default.
        """
        state, state_hidden = self.element_state(states.state).chunk(2, dim=-1)
        position, position_hidden = self.element_position(self._position_tokens(positions)).chunk(2, dim=-1)
        exact = self.multiplicity.dtype
        hidden = nn.functional.gelu(state[crystals, steps] + position)
        logits = self.element_logit(hidden).to(exact)
        if self.charge is not None and states.balance is not None:
            atoms = self.multiplicity[positions].long()
            scores = self.charge.element_scores(
                states.balance, hidden, crystals=crystals, steps=steps, atoms=atoms
            )
            logits = logits + (scores if charge_weights is None else scores * charge_weights[:, None])
        targets = batch.target_elements[crystals]
        wanted = batch.target_counts[crystals].to(exact)
        left, size = wanted - states.placed[crystals, steps], self.multiplicity[positions][:, None]
        fit = [wanted > 0, left > 0, left >= size, left == size, (left % size == 0) & (left > 0)]
        pair = (state_hidden[crystals, steps] + position_hidden)[:, None] + self.target_key(states.targets)[
            crystals
        ]
        hidden = nn.functional.gelu(pair + self.target_fit(torch.stack(fit, dim=2).to(logits.dtype)))
        scores = self.target_score(hidden)[..., 0].to(exact) * (targets > 0)
        logits = logits.scatter_add(1, (targets - 1).clamp(min=0), scores)
        if not self.config.element_reuse:
            return logits
        own, there = states.own_elements[crystals], states.own_placed[crystals, steps]
        whole = there.sum(dim=1, keepdim=True).expand_as(there)
        pair = self.own_state(states.state[crystals, steps]) + self.own_position(
            self._position_tokens(positions)
        )
        hidden = nn.functional.gelu(
            pair[:, None]
            + self.own_element(self._element_tokens(own))
            + self.own_amount(_amounts(there, whole, there > 0))
        )
        scores = self.own_score(hidden)[..., 0].to(exact) * (there > 0)
        return logits.scatter_add(1, (own - 1).clamp(min=0), scores)


def _different_elements(elements: Int[Tensor, "n orbits"]) -> Int[Tensor, "n own"]:
    """The different elements of each row, padded with zeros at the end."""
    falling = elements.sort(dim=1, descending=True).values
    again = torch.zeros_like(falling, dtype=torch.bool)
    again[:, 1:] = falling[:, 1:] == falling[:, :-1]
    kinds = falling.masked_fill(again, 0).sort(dim=1, descending=True).values
    return kinds[:, : int((kinds > 0).sum(dim=1).max()) if kinds.numel() else 0]


def _amounts(
    left: Float[Tensor, "*batch"], whole: Float[Tensor, "*batch"], known: Bool[Tensor, "*batch"]
) -> Float[Tensor, "*batch amounts"]:
    """Features of a number of atoms out of a whole, zero where not known."""
    left = left.clamp(min=0)
    features = [
        torch.ones_like(left),
        torch.log1p(left),
        left / 16,
        left / whole.clamp(min=1),
        (left == 0).to(left.dtype),
        (left % 2).to(left.dtype),
    ]
    return torch.stack(features, dim=-1) * known[..., None]


def _visibility(
    context: Bool[Tensor, "n context"], in_step: Bool[Tensor, "n steps orbits"]
) -> Bool[Tensor, "n tokens tokens"]:
    """Which token (column) each token (row) sees: the order of tokens is context, orbits, steps."""
    n, first = context.shape
    steps, orbits = in_step.shape[1:]
    visible = torch.zeros(
        n, first + orbits + steps, first + orbits + steps, dtype=torch.bool, device=context.device
    )
    visible[:, :, :first] = context[:, None, :]
    visible[:, first + orbits :, first : first + orbits] = in_step
    own = torch.arange(first, first + orbits + steps, device=context.device)
    visible[:, own, own] = True
    return visible
