"""What fan-out at run time asks of a store."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from flowstone.core.scattering import ItemCounts, ItemRow, NewItem, NewScatter, OpenScatter, ScatterRecord
from flowstone.core.state import State


class ScatterStore(Protocol):
    """Keeps the items that steps discover, as steps of runs of their own; every method is one transaction.

    The attempt that discovers ends with the outcome `Scattered` (`Ledger.commit`): its step then rests in the
    state `waiting`, and the transaction in which the last of its items ends lets it go on. The transaction that
    brings the failures beyond what is allowed cancels the other items; so does the one in which the step ends
    without them.
    """

    def begin(self, step_id: int, token: int, new: NewScatter) -> OpenScatter | None:
        """Begin the items of a step, or go on with those of an earlier attempt.

        Args:
            step_id: the step.
            token: fencing token of the attempt.
            new: what the items are to be like.

        Returns:
            The right to add items; None when the attempt was superseded or cancelled.
        """

    def add(self, scatter: OpenScatter, items: Sequence[NewItem]) -> bool | None:
        """Add items; those that an earlier attempt added are found again, not doubled.

        Args:
            scatter: the right to do so.
            items: the next ones in the order of discovery.

        Returns:
            Whether to go on: False when too many failed already. None when the attempt was superseded or
            cancelled; nothing was added then.

        Raises:
            LookupError: an item has the key of one that this attempt added before; its position is the argument.
        """

    def of_steps(self, step_ids: Sequence[int]) -> dict[int, ScatterRecord]:
        """Return the scatters that some steps have begun."""

    def of_run(self, run_id: str) -> ScatterRecord | None:
        """Return the scatter of a run of items."""

    def items(self, step_ids: Sequence[int]) -> dict[int, str]:
        """Return the items of some item steps, as text."""

    def page(self, run_id: str, *, after: int, limit: int, states: Collection[State]) -> list[ItemRow]:
        """Return items in some states in the order of discovery, those behind the position `after`."""

    def counts(self, run_id: str) -> ItemCounts:
        """Return how many items are in each state."""
