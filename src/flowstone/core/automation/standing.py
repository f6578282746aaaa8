"""How targets stand in a store: what is committed, what was asked for last, and what each had read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from flowstone.core.state import State
from flowstone.core.step import Target

_SHOWN = 8


class DataVersion(NamedTuple):
    """Which data a committed step wrote.

    Args:
        step_id: the step.
        content_hash: hash of the stored bytes; None when nothing was encoded, or the step is no longer recorded.

    Example:
        >>> DataVersion(1, "ab").is_same(DataVersion(2, "ab")), DataVersion(1, None).is_same(DataVersion(2, None))
        (True, False)
    """

    step_id: int
    content_hash: str | None = None

    def is_same(self, other: DataVersion) -> bool:
        """Whether both are the same data: one step, or equal hashes. Without a hash the step decides."""
        if self.step_id == other.step_id:
            return True
        return self.content_hash is not None and self.content_hash == other.content_hash

    def change_to(self, newer: DataVersion) -> str:
        """Say for people how this version became another one.

        Example:
            >>> DataVersion(1, "ab" * 32).change_to(DataVersion(2, "cd" * 32))
            'data version abababab → cdcdcdcd'
            >>> DataVersion(1).change_to(DataVersion(2, "cd" * 32))
            'step 1 → step 2'
        """
        if self.content_hash is None or newer.content_hash is None:
            return f"step {self.step_id} → step {newer.step_id}"
        return f"data version {self.content_hash[:_SHOWN]} → {newer.content_hash[:_SHOWN]}"


class CommittedVersion(NamedTuple):
    """The version of a target that is in use.

    Args:
        data: which data it is.
        committed_at: when it was committed, by the store's clock.
        code_version: version of the code that made it, when it was declared.
        started_at: when computing it started, as far as that is known.
    """

    data: DataVersion
    committed_at: datetime
    code_version: str | None = None
    started_at: datetime | None = None


class NewestStep(NamedTuple):
    """The newest step of a target that was not served by an earlier version.

    Args:
        step_id: the step.
        state: its state.
        code_version: version of the code it was placed with.
        requested_at: when it was asked for.
        started_at: when its last attempt started; None when it never did.
        finished_at: when it was over; None while it is active.
        run_id: its run.
    """

    step_id: int
    state: State
    code_version: str | None
    requested_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    run_id: str

    @property
    def is_active(self) -> bool:
        """Whether it is not over."""
        return self.finished_at is None

    @property
    def is_without_result(self) -> bool:
        """Whether it is over and committed nothing: failed, skipped or cancelled."""
        return self.finished_at is not None and not self.state.is_success


@dataclass(frozen=True, slots=True)
class TargetStatus:
    """How one target stands.

    Args:
        committed: the version in use; None when there is none, or it was invalidated.
        newest: the newest step; None when none was ever asked for, or all were pruned.
    """

    committed: CommittedVersion | None = None
    newest: NewestStep | None = None

    @property
    def active(self) -> NewestStep | None:
        """The step that is not over, if there is one."""
        return self.newest if self.newest is not None and self.newest.is_active else None

    @property
    def without_result(self) -> NewestStep | None:
        """The newest step, if it is over and committed nothing."""
        return self.newest if self.newest is not None and self.newest.is_without_result else None


NOTHING = TargetStatus()
"""A target that nobody ever asked for."""

type Reads = dict[Target, DataVersion]
"""What a step had read."""
