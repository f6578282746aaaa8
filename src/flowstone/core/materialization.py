"""A materialization: one committed version of an asset's partition, and where it came from."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Generic

from flowstone.core.generic import T_co
from flowstone.core.html_tables import html_table
from flowstone.core.outcome import Succeeded
from flowstone.core.output import JsonValue, StoredOutput
from flowstone.core.partitions import Partition, PartitionKey, decode_partition, encode_partition
from flowstone.core.route import RouteDecision, decision_of
from flowstone.core.state import State
from flowstone.core.step import AttemptResult, CheckRecord, InputVersion

_NOT_LOADED = object()
_new = object.__new__
_COMPLETED = State.COMPLETED


class Materialization(Generic[T_co]):  # noqa: UP046 - its variable has a default
    """What a verb returns when work is over; `Materialization[T]` has a value of the type `T`.

    Attributes:
        asset: asset name.
        partition: partition value; None without partitions.
        run_id: run that asked for it.
        step_id: step that stands for it in that run.
        state: `completed`, or `reused` when an earlier committed version served.
        reason: why it was skipped, when it was.
        attempt: attempt that succeeded.
        inputs: the exact upstream versions that were read.
        stored: where the value lies.
        started_at, finished_at: of the successful attempt.
        invalidated_at: when this version was taken out of use by `invalidate`; None while nobody did.
        deduplicated: True when the request joined the same work under way.
        checks: the newest result of each check of this version; see `flow.checks`.

    Example:
        >>> done = Materialization(asset="a", partition=None, run_id="r", step_id=1, value=5)
        >>> done.value, str(done.state)
        (5, 'completed')
    """

    __slots__ = (
        "_checks",
        "_load",
        "_value",
        "asset",
        "attempt",
        "code_version",
        "deduplicated",
        "finished_at",
        "inputs",
        "invalidated_at",
        "partition",
        "reason",
        "run_id",
        "started_at",
        "state",
        "step_id",
        "stored",
    )

    def __init__(
        self,
        *,
        asset: str,
        partition: Partition,
        run_id: str,
        step_id: int,
        state: State = State.COMPLETED,
        attempt: int = 1,
        inputs: tuple[InputVersion, ...] = (),
        stored: StoredOutput | None = None,
        started_at: datetime | None = None,
        finished_at: datetime | None = None,
        code_version: str | None = None,
        deduplicated: bool = False,
        reason: str | None = None,
        invalidated_at: datetime | None = None,
        value: object = _NOT_LOADED,
        load: Callable[[StoredOutput], object] | None = None,
        checks: tuple[CheckRecord, ...] | Callable[[], tuple[CheckRecord, ...]] = (),
    ) -> None:
        self.asset = asset
        self.partition = partition
        self.run_id = run_id
        self.step_id = step_id
        self.state = state
        self.attempt = attempt
        self.inputs = inputs
        self.stored = stored
        self.started_at = started_at
        self.finished_at = finished_at
        self.code_version = code_version
        self.deduplicated = deduplicated
        self.reason = reason
        self.invalidated_at = invalidated_at
        self._value = value
        self._load = load
        self._checks = checks

    @classmethod
    def of_attempt(cls, ended: AttemptResult) -> Materialization:
        """Return what a successful attempt of this process was committed as, with its value."""
        attempt, outcome = ended.attempt, ended.outcome
        assert isinstance(outcome, Succeeded)
        made = _new(cls)  # every inline step passes here, and so many keywords are not free
        made.asset = attempt.asset
        made.partition = decode_partition(attempt.partition_key) if attempt.partition_key else None
        made.run_id = attempt.run_id
        made.step_id = attempt.step_id
        made.state = _COMPLETED
        made.attempt = attempt.attempt
        made.inputs = ended.inputs
        made.stored = outcome.stored
        made.started_at = attempt.started_at
        made.finished_at = ended.finished_at
        made.code_version = ended.code_version
        made.deduplicated = False
        made.reason = made.invalidated_at = None
        made._load = None  # noqa: SLF001 - these are its own
        made._value = outcome.value  # noqa: SLF001
        made._checks = ended.checks  # noqa: SLF001
        return made

    @property
    def value(self) -> T_co:
        """The value itself; loaded through the IO manager on first use when another process made it.

        Raises:
            StorageError: the value cannot be loaded.
        """
        if self._value is _NOT_LOADED:
            if self._load is None or self.stored is None:
                raise LookupError(f"{self!r} has no stored value")
            self._value = self._load(self.stored)
        value: T_co = self._value  # type: ignore[assignment]  # nobody can check what was stored
        return value

    @property
    def checks(self) -> tuple[CheckRecord, ...]:
        """The newest result of each check of this version, read from the store on first use."""
        if not isinstance(self._checks, tuple):
            self._checks = self._checks()
        return self._checks

    @property
    def route(self) -> RouteDecision | None:
        """Which branches were chosen, and why; None for an asset that does not decide."""
        return decision_of(self.stored)

    @property
    def data_version(self) -> str | None:
        """Hash of the stored bytes: equal versions mean unchanged data. None when nothing was encoded."""
        return self.stored.content_hash if self.stored else None

    @property
    def partition_key(self) -> PartitionKey:
        """The encoded partition."""
        return encode_partition(self.partition)

    @property
    def key(self) -> PartitionKey:
        """The same as `partition_key`; deprecated, and gone in the next version."""
        return self.partition_key

    def to_json(self) -> dict[str, JsonValue]:
        """Return the record without the value."""
        return {
            "asset": self.asset,
            "partition": self.partition_key,
            "run_id": self.run_id,
            "step_id": str(self.step_id),
            "state": self.state.value,
            "attempt": self.attempt,
            "stored": self.stored.to_json() if self.stored else None,
            "inputs": [
                {
                    "parameter": one.parameter,
                    "asset": one.asset,
                    "partition": one.partition_key,
                    "step_id": str(one.step_id),
                }
                for one in self.inputs
            ],
            "code_version": self.code_version,
            "data_version": self.data_version,
            "started_at": self.started_at.isoformat() if self.started_at else None,
            "finished_at": self.finished_at.isoformat() if self.finished_at else None,
            "deduplicated": self.deduplicated,
            "reason": self.reason,
            "route": self.route.to_json() if self.route else None,
            "checks": [one.to_json() for one in self.checks],
        }

    def _repr_html_(self) -> str:
        """What a notebook shows; the value is not loaded for it."""
        took = self.finished_at - self.started_at if self.finished_at and self.started_at else None
        rows = [
            ("state", self.state.value),
            ("partition", None if self.partition is None else self.partition),
            ("run", self.run_id),
            ("attempt", self.attempt),
            ("committed", f"{self.finished_at:%Y-%m-%d %H:%M:%S %Z}" if self.finished_at else None),
            ("took", f"{took.total_seconds():.3g} s" if took else None),
            ("reason", self.reason),
            ("stored", f"{self.stored.io}: {self.stored.location}" if self.stored else None),
            ("inputs", ", ".join(f"{one.asset} {one.partition_key}".strip() for one in self.inputs) or None),
            ("invalidated", self.invalidated_at),
        ]
        known = [row for row in rows if row[1] is not None]
        return html_table(f"Materialization of {self.asset}", ("", ""), known)

    def __repr__(self) -> str:
        partition = f" [{self.partition_key}]" if self.partition_key else ""
        return f"<materialization of {self.asset}{partition}: {self.state.value}, run {self.run_id}>"
