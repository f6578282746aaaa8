"""What a run is asked for: built and checked once from the keywords of a verb, and never changed.

`PartitionTargets` keeps many partitions of one asset as compressed text: a backfill may have millions, and an
object for each would not fit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import batched, islice
from typing import Any, cast, overload

from flowstone.core.declaring import is_storable_time, shown, whole_number
from flowstone.core.frozen import maker
from flowstone.core.partitions import PartitionKey
from flowstone.core.run_details import RunDetails
from flowstone.core.step import Target
from flowstone.errors import OptionsError
from flowstone.protocols import Executor

NORMAL_PRIORITY = 4
BACKFILL_PRIORITY = 8
BACKFILL_QUEUE = "backfill"
_CHUNK = 1000
_WIDEST = 1_000_000
_FLAGS = ("force", "force_deps", "allow_incomplete", "wait_for_inputs")


class PackedKeys:
    """Encoded partitions in the order in which they were given, each once, packed into a few long texts.

    An encoded partition is one line of text, so lines are a safe way to pack them. While the keys rise, which
    those of a time range do, none can be there twice and nothing has to be remembered.

    Args:
        keys: encoded partitions.

    Example:
        >>> list(PackedKeys(["s:b", "s:a", "s:b"]).read())
        ['s:b', 's:a']
    """

    def __init__(self, keys: Iterable[PartitionKey]) -> None:
        self._chunks: list[str] = []
        rises = True
        last = ""
        for chunk in batched(keys, _CHUNK):
            rises = rises and last < chunk[0] and all(map(str.__lt__, chunk, chunk[1:]))
            last = chunk[-1]
            self._chunks.append("\n".join(chunk))
        if not rises:
            once = dict.fromkeys(self.read())
            self._chunks = ["\n".join(chunk) for chunk in batched(once, _CHUNK)]

    def read(self) -> Iterator[PartitionKey]:
        """Yield the keys."""
        for chunk in self._chunks:
            yield from cast(list[PartitionKey], chunk.split("\n"))


class PartitionTargets(Sequence[Target]):
    """Many partitions of one asset as targets, made when they are read: a large backfill is never a list.

    Args:
        asset: asset name.
        partitions: yields the partitions anew each time.
    """

    def __init__(self, asset: str, partitions: Callable[[], Iterable[PartitionKey]]) -> None:
        self.asset = asset
        self.partitions = partitions
        self._total: int | None = None

    def __iter__(self) -> Iterator[Target]:
        return ((self.asset, key) for key in self.partitions())

    def __len__(self) -> int:
        if self._total is None:
            self._total = sum(1 for _ in self.partitions())
        return self._total

    def __bool__(self) -> bool:
        return next(iter(self), None) is not None

    @overload
    def __getitem__(self, index: int) -> Target: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Target]: ...
    def __getitem__(self, index: int | slice) -> Target | Sequence[Target]:
        if isinstance(index, slice):
            # the first few are asked for without making the others
            first = index.stop is not None and index.stop >= 0 and index.start is None and index.step is None
            return list(islice(self, index.stop)) if first else list(self)[index]
        found = next(islice(self, index, None), None) if index >= 0 else list(self)[index]
        if found is None:
            raise IndexError(index)
        return found


@dataclass(frozen=True, slots=True)
class RunSpec:
    """A request for a run. What follows from it, such as queue and window, is computed where it is needed.

    Args:
        kind: the verb.
        selection: what was asked for, for people.
        targets: (asset, encoded partition) pairs that should be there in the end.
        executor: name or object; `auto` chooses.
        executor_opts: options for this call.
        force: recompute the targets although they are committed.
        force_deps: recompute what is upstream of them as well.
        expand: names of assets that may be added upstream when missing; None for all, empty for none.
        run_id: id for the run; made when None.
        priority: 0 (first) to 9; when None `usual_priority`, else the asset's own.
        usual_priority: the priority of the verb, when it has one.
        queue: queue to use instead of the asset's.
        max_concurrency: most steps at once.
        scheduled_at: earliest start.
        watched: whether a caller waits for the end.
        retry_of: run whose failures this one repeats.
        wait_for_inputs: whether steps wait for inputs that nobody is about to make; None leaves that to the verb:
            a request that is waited for does not, durable work that was only placed does.
        explicit: names of the assets whose partitions were said: one that is not over, or reads what is not, is
            refused; of the others it is left out.
        allow_incomplete: compute partitions that are not over.
        now: time that decides which partitions are complete; the present when None.
        config: see `FlowStone.materialize`; so are `tags`, `metadata`, `io`, `resources`, `hooks` and
            `hooks_config`. They are checked against the app when the run is planned.
        details: the same of an earlier run, checked already, which this one repeats.

    Raises:
        OptionsError: an option cannot work.

    Example:
        >>> RunSpec(kind="materialize", selection="a", targets=[("a", "")], priority=4).assets
        ('a',)
    """

    kind: str
    selection: str
    targets: Sequence[Target]
    executor: str | Executor = "auto"
    executor_opts: Mapping[str, Any] | None = None
    force: bool = False
    force_deps: bool = False
    expand: Collection[str] | None = ()
    run_id: str | None = None
    priority: int | None = None
    usual_priority: int | None = None
    queue: str | None = None
    max_concurrency: int | None = None
    scheduled_at: datetime | None = None
    watched: bool = True
    retry_of: str | None = None
    wait_for_inputs: bool | None = None
    explicit: Collection[str] = ()
    allow_incomplete: bool = False
    now: datetime | None = None
    config: object = None
    tags: Iterable[str] = ()
    metadata: Mapping[str, Any] | None = None
    io: str | Mapping[str, str] | None = None
    resources: Mapping[str, str] | None = None
    hooks: Iterable[str] = ()
    hooks_config: Mapping[str, Any] | None = None
    details: RunDetails | None = None

    def __post_init__(self) -> None:
        waits = True if self.wait_for_inputs is None else self.wait_for_inputs
        given: Any = self
        if not (
            type(given.force) is type(given.force_deps) is type(given.allow_incomplete) is type(waits) is bool
        ):
            flags: tuple[object, ...] = (self.force, self.force_deps, self.allow_incomplete, waits)
            name, flag = next(one for one in zip(_FLAGS, flags, strict=True) if type(one[1]) is not bool)
            raise OptionsError(f"{name}={shown(flag)}: give True or False.")
        if self.executor_opts is not None:
            _check_names("executor_opts", self.executor_opts)
        width = self.max_concurrency
        if width is not None and (type(width) is not int or not 1 <= width <= _WIDEST):
            raise OptionsError(
                f"max_concurrency={shown(width)}: give a whole number from 1 to {_WIDEST:,}, or None."
            )
        priority = self.priority
        if priority is not None:
            found = whole_number(priority, minimum=0, maximum=9)
            if found is None:
                raise OptionsError(f"priority={shown(priority)}: give a whole number from 0 (first) to 9.")
            object.__setattr__(self, "priority", found)  # one of NumPy is no JSON
        if self.run_id is not None and not _is_run_id(self.run_id):
            raise OptionsError(f"run_id={shown(self.run_id)}: give 1 to 200 printable characters.")
        if self.scheduled_at is not None and not isinstance(self.scheduled_at, datetime):
            raise OptionsError(
                f"scheduled_at={shown(self.scheduled_at)}: give a datetime with a time zone, such as "
                "datetime.now(UTC) + timedelta(hours=1)."
            )
        if self.scheduled_at is not None and self.scheduled_at.tzinfo is None:
            raise OptionsError(
                f"scheduled_at={self.scheduled_at!r} has no time zone; write datetime(..., tzinfo=UTC)."
            )
        if self.scheduled_at is not None and not is_storable_time(self.scheduled_at):
            raise OptionsError(f"scheduled_at={shown(self.scheduled_at)}: give a time of the years 2 to 9998.")

    @property
    def assets(self) -> tuple[str, ...]:
        """Names of the assets that are asked for."""
        if type(self.targets) is PartitionTargets:  # asked as itself: an abstract class is not quickly asked about
            return (self.targets.asset,)
        if len(self.targets) == 1:
            return (self.targets[0][0],)
        return tuple(dict.fromkeys(asset for asset, _ in self.targets))

    @property
    def is_plain(self) -> bool:
        """Whether nothing was said about how the run computes its assets: no config, no tags, no parts by name."""
        if (
            self.details is None
            and self.config is self.metadata is self.io is self.resources is self.hooks_config is None
        ):
            tags: object = self.tags
            hooks: object = self.hooks
            # not asked whether they are equal to nothing: arrays are not just equal or not
            return (tags is None or (type(tags) is tuple and not tags)) and (
                hooks is None or (type(hooks) is tuple and not hooks)
            )
        return False


make_spec = maker(RunSpec)
"""Makes a request of the same arguments."""


def _check_names(option: str, given: object) -> None:
    """Refuse what is no mapping of names to values.

    Raises:
        OptionsError: says what it is.
    """
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise OptionsError(f"{option}={given!r}: give a mapping of names to values, such as {{'retry': True}}.")


def _is_run_id(given: object) -> bool:
    return isinstance(given, str) and 1 <= len(given) <= 200 and given.isprintable()
