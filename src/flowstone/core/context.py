"""What an asset's function may know about the step it runs in."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Protocol

from flowstone.core.approval import Approval
from flowstone.core.asset import Asset
from flowstone.core.output import JsonValue
from flowstone.core.partitions import Partition, PartitionKey, decode_partition
from flowstone.core.run_details import RunInfo
from flowstone.core.step import Attempt
from flowstone.errors import ResourceError, StepCancelledError, did_you_mean


class CancellationToken:
    """Signals running code that it should stop; long loops check it now and then.

    Example:
        >>> token = CancellationToken()
        >>> token.cancel("by a person")
        >>> token.is_cancelled, token.reason
        (True, 'by a person')
    """

    # of the class until something happens: every step has a token, and few are asked for anything
    _calls: list[Callable[[], object]] | None = None
    _event: threading.Event | None = None
    reason: str | None = None

    @property
    def is_cancelled(self) -> bool:
        """Whether a stop was requested."""
        return self.reason is not None

    def cancel(self, reason: str = "cancelled") -> None:
        """Ask for a stop; asking again changes nothing."""
        if self.reason is None:
            self.reason = reason
            if self._event is not None:
                self._event.set()
            for call in self._calls or ():
                call()

    def on_cancel(self, call: Callable[[], object]) -> None:
        """Have something called when a stop is asked for, by whoever asks; at once when that has happened.

        It must be quick, and may be called twice.
        """
        if self._calls is None:
            self._calls = []
        self._calls.append(call)
        if self.reason is not None:
            call()

    def wait(self, timeout_seconds: float) -> bool:
        """Sleep until a stop is asked for, at most `timeout_seconds`; return whether it was."""
        if self._event is None:
            # made on first use: an Event costs more than everything else in a step that needs none
            self._event = threading.Event()
            if self.reason is not None:
                self._event.set()
        return self._event.wait(timeout_seconds)

    def raise_if_cancelled(self, asset: str = "the step") -> None:
        """Raise StepCancelledError when a stop was asked for."""
        if self.reason is not None:
            raise StepCancelledError(asset)


class Resources(Mapping[str, Any]):
    """The opened resources that an asset, or a sensor, requires, by attribute or by key."""

    __slots__ = ("_kind", "_opened", "_owner")

    def __init__(self, opened: Mapping[str, Any], owner: str, *, kind: str = "asset") -> None:
        self._opened = opened
        self._owner = owner
        self._kind = kind

    def __getitem__(self, name: str) -> Any:
        try:
            return self._opened[name]
        except KeyError:
            raise ResourceError(
                f"{self._kind.capitalize()} {self._owner!r} did not ask for a resource {name!r}."
                f"{did_you_mean(name, self._opened)} Add it: @{self._kind}(requires=[{name!r}])."
            ) from None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self[name]

    def __contains__(self, name: object) -> bool:
        return name in self._opened

    def get(self, name: str, default: Any = None) -> Any:
        """Return a resource, or `default` when it was not asked for."""
        return self._opened.get(name, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._opened)

    def __len__(self) -> int:
        return len(self._opened)


_new = object.__new__


_NOTHING: Mapping[str, Any] = MappingProxyType({})


class KeepsLog(Protocol):
    """Keeps what an attempt logs."""

    def logger(self, plain: logging.Logger) -> logging.Logger:
        """Return a logger whose records belong to the attempt in whatever thread they are made."""


class AssetContext:
    """The step at hand: passed to hooks, and to functions whose first parameter is `context`.

    Attributes:
        asset: the asset's declaration.
        partition: partition value, None without partitions.
        key: encoded partition.
        run_id: run of the step.
        run: what the run is about: id, kind, tags, metadata, config of its assets.
        config: the asset's config in this run, an object of its declared type; None without one.
        hooks_config: config of the run's named hooks, by name.
        step_id: id of the step.
        attempt: 1 for the first attempt.
        token: fencing token; pass it to outside systems that support fencing.
        started_at: when this attempt started, timezone-aware.
        cancellation: signals when to stop.
        resources: what the asset requires, opened.
        inputs: the values that the function receives, by parameter; loaded when it is about to be called.
        metadata: small JSON facts recorded with the output; fill it as you like.
        log: keeps what the attempt logs; None when that is switched off.
        approvals: decisions at the gates of this step that let it go on, by name of the gate, in order.
    """

    __slots__ = (
        "_logger",
        "approvals",
        "asset",
        "attempt",
        "cancellation",
        "config",
        "hooks_config",
        "inputs",
        "key",
        "log",
        "metadata",
        "partition",
        "resources",
        "run",
        "run_id",
        "started_at",
        "step_id",
        "token",
    )

    def __init__(
        self,
        *,
        asset: Asset,
        partition: Partition,
        key: PartitionKey,
        run_id: str,
        step_id: int,
        attempt: int,
        token: int,
        started_at: datetime,
        cancellation: CancellationToken,
        resources: Mapping[str, Any],
        approvals: Iterable[Approval] = (),
        run: RunInfo | None = None,
        config: Any = None,
        hooks_config: Mapping[str, Any] | None = None,
        log: KeepsLog | None = None,
    ) -> None:
        self.asset = asset
        self.partition = partition
        self.key = key
        self.run_id = run_id
        self.run = run or RunInfo(id=run_id)
        self.config = config
        self.hooks_config: Mapping[str, Any] = hooks_config or {}
        self.step_id = step_id
        self.attempt = attempt
        self.token = token
        self.started_at = started_at
        self.cancellation = cancellation
        # by attribute as well: what functions see is a `Resources`; others have none to see
        self.resources: Resources = resources  # type: ignore[assignment]
        self.inputs: dict[str, Any] = {}
        self.metadata: dict[str, JsonValue] = {}
        self.log = log
        self._logger: logging.Logger | None = None
        self.approvals: dict[str, Approval] = {one.gate: one for one in approvals} if approvals else {}

    @classmethod
    def of_attempt(
        cls, asset: Asset, attempt: Attempt, cancellation: CancellationToken, log: KeepsLog | None
    ) -> AssetContext:
        """Return the context of an attempt, without what its asset and its run ask for besides."""
        made = _new(cls)  # every step passes here, and so many keywords are not free
        made.asset = asset
        made.partition = decode_partition(attempt.partition_key) if attempt.partition_key else None
        made.key = attempt.partition_key
        made.run_id = attempt.run_id
        made.run = attempt.run or RunInfo(id=attempt.run_id)
        made.config = None
        made.hooks_config = _NOTHING
        made.resources = _NOTHING  # type: ignore[assignment]  # as above
        made.step_id = attempt.step_id
        made.attempt = attempt.attempt
        made.token = attempt.token
        made.started_at = attempt.started_at
        made.cancellation = cancellation
        made.inputs = {}
        made.metadata = {}
        made.log = log
        made._logger = None  # noqa: SLF001 - it is its own
        made.approvals = {one.gate: one for one in attempt.approvals} if attempt.approvals else {}
        return made

    @property
    def approval(self) -> Approval | None:
        """The latest decision that let this step go on; None as long as nobody has been asked."""
        return next(reversed(self.approvals.values()), None)

    @property
    def logger(self) -> logging.Logger:
        """Logger of this asset; what it is given belongs to this attempt, also in threads of your own.

        Records of INFO and above are kept with the attempt (`flow.logs`, `flowstone logs`), also where logging is
        not configured. Handlers, filters and levels are those of the logger `flowstone.asset.<name>`.
        """
        if self._logger is None:
            plain = logging.getLogger(f"flowstone.asset.{self.asset.name}")
            self._logger = plain if self.log is None else self.log.logger(plain)
        return self._logger

    def __repr__(self) -> str:
        partition = f" [{self.key}]" if self.key else ""
        return f"<context of {self.asset.name}{partition}, attempt {self.attempt}, run {self.run_id}>"
