"""What is shown of a version, and of what it was made from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

from flowstone.core.output import JsonValue
from flowstone.core.partitions import PartitionKey


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionLine:
    """One version, as a line of a list.

    Args:
        version: its number: the step that made it.
        asset: asset name.
        partition: as people write it; empty without partitions.
        state: `current`, `restored` (current again), `earlier`, `invalidated` or `erased`.
        run_id: run of the step.
        kind: kind of that run.
        requested_by: who asked for it.
        committed_at: when its attempt ended.
        since: since when it is in use.
        seconds: how long the attempt took.
        code_version: declared version of the code.
        data_version: hash of its bytes.
        size_bytes: their size.
        is_stored: whether the value is there; None when that is not known.
        changed_at: when a person restored, invalidated or erased it last.
        changed_by: who that was.
        reason: why.
    """

    version: int
    asset: str
    partition: str
    state: str
    run_id: str
    kind: str | None
    requested_by: str | None
    committed_at: datetime | None
    since: datetime | None
    seconds: float | None
    code_version: str | None
    data_version: str | None
    size_bytes: int | None
    is_stored: bool | None
    changed_at: datetime | None = None
    changed_by: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkedVersion:
    """A version that another one was made from, or that was made from it.

    Args:
        version: its number.
        asset: asset name.
        partition: as people write it.
        is_current: whether it is in use.
        parameters: the parameters to which it was passed, for what was read.
        in_use: the version in use instead, for what was read; None when it is this one, or none.
        data_version: hash of its bytes.
    """

    version: int
    asset: str
    partition: str
    is_current: bool
    parameters: tuple[str, ...] = ()
    in_use: int | None = None
    data_version: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckLine:
    """The newest result of a check.

    Args:
        check: its name.
        partition: of the version that it looked at, as people write it.
        passed: whether the value was as it should be.
        severity: `error` or `warning`.
        blocking: whether a failure keeps a value from being published.
        description: what the check said.
        error: the line that says what it raised, when it did.
        version: the step whose value it looked at.
        started_at: when.
        seconds: how long it took.
        metadata: facts, as texts.
    """

    check: str
    partition: str
    passed: bool
    severity: str
    blocking: bool
    description: str
    error: str
    version: int
    started_at: datetime
    seconds: float
    metadata: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionDetail:
    """What a version is made of.

    Args:
        line: the version.
        attempt: the attempt that made it.
        io: name of its IO manager; None once the value was erased.
        location: where the value lies, for that manager.
        serializer: format of the bytes.
        value_type: Python type of the value.
        metadata: what its function recorded, as texts.
        reads: the exact versions that it was made from.
        readers: versions that were made from it, those in use first.
        more_readers: whether there are more.
        checks: the newest result of each check of it.
        attempts: how many attempts there were.
        logs: how many lines they logged.
    """

    line: VersionLine
    attempt: int
    io: str | None
    location: str | None
    serializer: str | None
    value_type: str | None
    metadata: tuple[tuple[str, str], ...]
    reads: tuple[LinkedVersion, ...]
    readers: tuple[LinkedVersion, ...]
    more_readers: bool
    checks: tuple[CheckLine, ...]
    attempts: int
    logs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpublishedVersion:
    """A version that is in use, or is no more, which readers outside of FlowStone do not see yet.

    Args:
        asset: asset name.
        partition: as people write it; empty without partitions.
        io: the IO manager that publishes it.
        location: where it lies.
        in_use: whether readers are to see it; False when they are to see none.
        since: when that was committed.
        declared: whether the app knows the IO manager, so that it can publish it.
    """

    asset: str
    partition: str
    io: str
    location: str
    in_use: bool
    since: datetime | None
    declared: bool

    def __str__(self) -> str:
        """What is the matter, in a sentence."""
        what = "what is in use" if self.in_use else "that nothing is in use any more"
        why = "" if self.declared else ", which this app does not declare"
        return f"Readers outside do not see {what} yet: it is to be published by the IO manager {self.io!r}{why}."


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetDetail:
    """How one partition of an asset stands.

    Args:
        asset: asset name.
        partition: as people write it; empty without partitions.
        partition_key: the same, encoded.
        state: `current`, `stale`, `missing`, `failed`, `active` or `erased`.
        says: that in a sentence.
        why: reasons, the most important first.
        version: the one in use; None for none.
        step_id: the newest step that was asked for; None for none.
        step_state: its state.
        run_id: its run.
        declared: whether the app declares the asset, and the asset the partition.
        unpublished: what readers outside of FlowStone do not see yet; None when they see what is in use.
    """

    asset: str
    partition: str
    partition_key: PartitionKey
    state: str
    says: str
    why: tuple[str, ...]
    version: int | None
    step_id: int | None
    step_state: str | None
    run_id: str | None
    declared: bool
    unpublished: UnpublishedVersion | None = None


def shown_metadata(metadata: dict[str, JsonValue], *, limit: int = 100) -> tuple[tuple[str, str], ...]:
    """Return what was recorded as texts of a bounded length.

    Example:
        >>> shown_metadata({"rows": 3, "by": {"eu": 1}})
        (('rows', '3'), ('by', '{"eu": 1}'))
    """
    return tuple((name, _shown(value)) for name, value in list(metadata.items())[:limit])


def _shown(value: JsonValue) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "…"


_MAX_SHOWN = 500
