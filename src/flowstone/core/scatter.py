"""Fan-out at run time: an asset that discovers its items when it runs, has a step for each, and gathers.

First an item as text and the key by which people know it; then the declaration, `@scatter`, which makes one asset
of the three functions; then the records that stores keep of a scatter and its items.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Protocol, cast

from flowstone.core.asset import Asset, Isolation, asset
from flowstone.core.automation.condition import Condition, Paced
from flowstone.core.declaring import known_options
from flowstone.core.definition import PartitionsDefinition
from flowstone.core.dependency import CONTEXT_PARAMETER, DependencyLike
from flowstone.core.generic import P, T_co
from flowstone.core.limits import Limit, LimitLike
from flowstone.core.output import StoredOutput
from flowstone.core.partitions import Partition, PartitionKey, decode_partition, encode_partition
from flowstone.core.retry import RetryPolicy
from flowstone.core.state import State
from flowstone.core.step import InputVersion
from flowstone.errors import DefinitionError, ItemError, PartitionError, UnknownPartitionError

MAX_ITEM_CHARACTERS = 64 * 1024
"""Largest item as JSON text: an item names the work, it does not carry the data."""

MAX_KEY_CHARACTERS = 1000
_PARTITION = "p"  # no JSON text begins with this letter
_PLAIN = (str, int, bool, type(None))

type Key = Callable[[Any], Partition]


def encode_item(item: object, *, asset: str, position: int) -> str:
    """Return the text of an item, from which `decode_item` makes the same value again.

    Args:
        item: a JSON value, or a partition value such as a date or a tuple.
        asset: for the error.
        position: for the error.

    Raises:
        ItemError: it is neither, or too large.

    Example:
        >>> encode_item({"page": 7}, asset="pages", position=0)
        '{"page":7}'
    """
    problem = _item_problem(item, "item")
    if problem is None:
        text = json.dumps(item, separators=(",", ":"), allow_nan=False)
    else:
        try:
            text = _PARTITION + encode_partition(item)  # type: ignore[arg-type]  # that is being found out
        except PartitionError:
            raise ItemError(asset, position, f"{problem}. Items are JSON values or partition values.") from None
    if len(text) > MAX_ITEM_CHARACTERS:
        raise ItemError(
            asset,
            position,
            f"it has {len(text):,} characters as JSON, more than {MAX_ITEM_CHARACTERS:,}. Let the item name the "
            "data (an id, a path) and load it in the function of the item.",
        )
    return text


def decode_item(text: str) -> Any:
    """Return the item of a text.

    Example:
        >>> decode_item('{"page":7}'), decode_item("pd:2024-01-01")
        ({'page': 7}, datetime.date(2024, 1, 1))
    """
    return decode_partition(text[1:]) if text.startswith(_PARTITION) else json.loads(text)


def key_of(item: object, position: int, key: Key | None, *, asset: str) -> Partition:
    """Return the key of an item: what `key` says, else the item if it is a partition value, else its position.

    Raises:
        ItemError: `key` raised, or gave something that cannot be a key.

    Example:
        >>> key_of("eu", 0, None, asset="a"), key_of([1], 3, None, asset="a")
        ('eu', 3)
    """
    try:
        if key is not None:
            found = key(item)
            text = encode_partition(found)
        else:
            found, text = _own_key(item, position)
    except Exception as error:
        problem = f"key={getattr(key, '__name__', key)!s} gave no key: {type(error).__name__}: {error}"
        raise ItemError(asset, position, problem) from error
    if len(text) > MAX_KEY_CHARACTERS:
        raise ItemError(
            asset, position, f"its key has {len(text):,} characters; give a shorter one with @scatter(key=...)."
        )
    return found


def _own_key(item: object, position: int) -> tuple[Partition, PartitionKey]:
    if item is not None:
        try:
            return item, encode_partition(item)  # type: ignore[arg-type, return-value]  # being found out
        except PartitionError:
            pass
    return position, encode_partition(position)


def _item_problem(value: object, path: str) -> str | None:
    """Say why a value would not come back from JSON as it is; only exact types do."""
    kind = type(value)
    if kind in _PLAIN:
        return None
    if kind is float:
        assert isinstance(value, float)
        return None if math.isfinite(value) else f"{path} is {value}"
    if isinstance(value, list) and kind is list:
        return next((found for n, one in enumerate(value) if (found := _item_problem(one, f"{path}[{n}]"))), None)
    if isinstance(value, dict) and kind is dict:
        for name, one in value.items():
            if type(name) is not str:
                return f"{path} has the key {name!r}, which is not text"
            if found := _item_problem(one, f"{path}[{name!r}]"):
                return found
        return None
    return f"{path} is a {kind.__module__}.{kind.__qualname__}"


class ItemPartitions(PartitionsDefinition):
    """The partitions of item steps: (partition of the scatter, key of the item). Nobody can list them.

    Example:
        >>> items = ItemPartitions()
        >>> items.label((None, "eu")), items.parse("eu")
        ('eu', (None, 'eu'))
    """

    def keys(self, now: datetime) -> Iterator[Partition]:
        """Yield nothing: items are discovered when their scatter runs."""
        return iter(())

    def validate(self, value: object) -> Partition:
        """Return a pair of partition and key."""
        if isinstance(value, tuple) and len(value) == 2:
            return value
        raise UnknownPartitionError(value, hint="An item is the pair (partition of its asset or None, key).")

    def parse(self, text: str) -> Partition:
        """Return the item with this label."""
        try:
            found = decode_partition(text)
        except PartitionError:
            return None, text
        return found if isinstance(found, tuple) and len(found) == 2 else (None, found)

    def label(self, value: Partition) -> str:
        """Return the key of an item without a partition, else the encoded pair."""
        pair = self.validate(value)
        assert isinstance(pair, tuple)
        parent, key = pair
        text = encode_partition(key)
        if parent is None and isinstance(key, str) and self.parse(key) == value:
            return key
        return text if parent is None and not isinstance(key, tuple) else encode_partition(value)

    def between(self, start: Partition, end: Partition, now: datetime) -> Iterator[Partition]:
        """Yield nothing."""
        return iter(())

    def last(self, now: datetime) -> Partition | None:
        """Return None."""
        return None

    def is_complete(self, key: Partition, now: datetime) -> bool:
        """Say that it is: an item is there once it was discovered."""
        return True

    def to_json(self) -> dict[str, object]:
        """Describe the definition with JSON types."""
        return {"type": "items"}


DEFAULT_CONCURRENCY = 100


class ItemAsset(Asset):
    """The asset of the items of a scatter: one step for each item.

    Attributes:
        parameter: the parameter of the function that receives the item.
        scatter: name of the asset that discovers the items.
    """

    hidden = True
    parameter: str
    scatter: str

    @property
    def owner(self) -> str:
        """The scatter: a run configures it and its items together."""
        return self.scatter


class ScatterPhase(Asset):
    """One of the two functions of a scatter, as the runner calls it: discovering or gathering.

    Items stream from the first one into the store and from there into the second one, so neither can run in
    another process.
    """

    portable = False


class Scatter(Asset[P, T_co]):
    """An asset that discovers its items when it runs; made by `scatter`.

    Each item is a step of its own, of the asset `item`. When all are over, what they made is gathered.

    Attributes:
        item: the asset of the items.
        key: names an item; None for the item itself, or its position.
        max_concurrency: most items at once.
        max_failures: how many items may fail: a number, or a share.
        gathering: receives the results; None when the asset's value is the reader of the results itself.
        results: the parameter of `gathering` that receives the reader.
    """

    item: ItemAsset
    key: Key | None
    max_concurrency: int
    max_failures: float
    gathering: Asset | None
    results: str

    @property
    def companions(self) -> tuple[Asset, ...]:
        """The assets that come with this one into an app."""
        return (self.item,)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Call the plain function, which gives the items."""
        return self.function(*args, **kwargs)

    def gather[T](self, function: Callable[..., Coroutine[Any, Any, T]] | Callable[..., T]) -> Scatter[P, T]:
        """Declare the function that makes the asset's value from the results of the items.

        Args:
            function: takes the results (a `Gathered`), after the context if its first parameter is `context`.

        Returns:
            The scatter itself, which from then on has what the function returns as its value.

        Raises:
            DefinitionError: it takes anything else, or there is a gathering function already.
        """
        if self.gathering is not None:
            raise DefinitionError(
                f"Asset {self.name!r} has a gathering function already ({self.gathering.where}).", where=self.where
            )
        found = asset(name=f"{self.name}.gather")(function)
        self.results = _only_input(found, "the gathering function", "the results")
        self.gathering = found
        return cast("Scatter[P, T]", self)

    def phase(self, function: Callable[..., Any], *, takes_context: bool, is_async: bool) -> ScatterPhase:
        """Return this asset as the runner calls one of its functions."""
        phase = ScatterPhase.__new__(ScatterPhase)
        vars(phase).update(vars(self))
        phase.function, phase.takes_context, phase.is_async = function, takes_context, is_async
        return phase


class _Scatters(Protocol):
    """What `@scatter(...)` returns: a decorator."""

    def __call__[**Q](self, function: Callable[Q, object], /) -> Scatter[Q, Any]: ...


@known_options("@scatter")
def scatter(
    *,
    each: Callable[..., Any] | Asset,
    max_concurrency: int = DEFAULT_CONCURRENCY,
    max_failures: float = 0,
    key: Key | None = None,
    name: str | None = None,
    deps: Mapping[str, DependencyLike] | Iterable[DependencyLike] = (),
    partitions: PartitionsDefinition | None = None,
    io: str | None = None,
    requires: Iterable[str] = (),
    retry: RetryPolicy | None = None,
    timeout: timedelta | float | None = None,
    queue: str = "assets",
    priority: int | None = None,
    isolation: Isolation = "thread",
    concurrency: Mapping[str, LimitLike] | None = None,
    tags: Iterable[str] = (),
    group: str | None = None,
    description: str | None = None,
    code_version: str | None = None,
    automation: Condition | Paced | None = None,
    routes: Iterable[str] = (),
    config: Any = None,
    allow_incomplete: bool = False,
    renamed_from: str | Iterable[str] | None = (),
    fresh_within: timedelta | float | None = None,
) -> _Scatters:
    """Declare a function that discovers items, each of which is then a durable step of its own.

    The function returns the items or yields them; its parameters are dependencies. When all items are over, the
    gathering function (see `Scatter.gather`) makes the asset's value of their results; else it is a `Gathered`.

    Args:
        each: what is done with an item: a function of it, or one declared by `@asset(...)`, with its options.
        max_concurrency: most items at once, in the whole fleet on a durable executor.
        max_failures: how many items may fail: a number (int) or a share of all (float, 0 to 1).
        key: names an item, uniquely; by default the item itself if it can be a partition, else its position.
        name: see `asset`; so are the other options, which are for discovering and gathering.

    Returns:
        A decorator that makes a `Scatter`, callable as the plain discovering function.

    Raises:
        DefinitionError: an option or a parameter cannot work; names file and line.

    Example:
        >>> def squared(number):
        ...     return number * number
        >>> @scatter(each=squared)
        ... def squares():
        ...     yield from [1, 2, 3]
        >>> @squares.gather
        ... def total(results):
        ...     return sum(result.value for result in results)
        >>> from flowstone import FlowStone
        >>> FlowStone([squares]).materialize("squares").value
        14
    """
    declare = asset(
        name=name,
        deps=deps,
        partitions=partitions,
        io=io,
        requires=requires,
        retry=retry,
        timeout=timeout,
        queue=queue,
        priority=priority,
        isolation=isolation,
        concurrency=concurrency,
        tags=tags,
        group=group,
        description=description,
        code_version=code_version,
        automation=automation,
        routes=routes,
        config=config,
        allow_incomplete=allow_incomplete,
        renamed_from=renamed_from,
        fresh_within=fresh_within,
    )

    def decorate[**Q](function: Callable[Q, object], /) -> Scatter[Q, Any]:
        made = _scatter(declare(function), each, max_concurrency, max_failures, key)
        return cast("Scatter[Q, Any]", made)

    return decorate


def _scatter(
    declared: Asset,
    each: Callable[..., Any] | Asset,
    max_concurrency: int,
    max_failures: float,
    key: Key | None,
) -> Scatter:
    problem = _declaration_problem(max_concurrency, max_failures, key)
    if declared.isolation == "process":
        problem = 'isolation="process": items stream from it into the store; declare that for the items (each=...)'
    if problem:
        raise DefinitionError(f"Asset {declared.name!r} was declared with {problem}.", where=declared.where)
    made = Scatter.__new__(Scatter)
    vars(made).update(vars(declared))
    made.key, made.max_concurrency, made.max_failures = key, max_concurrency, max_failures
    made.gathering, made.results = None, "results"
    made.item = _item(made, each)
    return made


def _declaration_problem(max_concurrency: object, max_failures: object, key: object) -> str | None:
    if type(max_concurrency) is not int or max_concurrency < 1:
        return f"max_concurrency={max_concurrency!r}: give at least 1"
    if type(max_failures) is float and not 0 <= max_failures <= 1:
        return f"max_failures={max_failures!r}: give a share from 0.0 to 1.0, or a number of items without a point"
    if type(max_failures) not in (int, float) or (type(max_failures) is int and max_failures < 0):
        return f"max_failures={max_failures!r}: give a number of items, or a share such as 0.05"
    if key is not None and not callable(key):
        return f"key={key!r}: give a function of the item"
    return None


def _item(scatter: Scatter, each: Callable[..., Any] | Asset) -> ItemAsset:
    name = f"{scatter.name}.item"
    declared = each if isinstance(each, Asset) else asset(name=name)(each)
    if declared.partitions is not None or isinstance(declared, Scatter):
        raise DefinitionError(
            f"Asset {scatter.name!r}: each={declared.name!r} cannot have partitions, or scatter again: its "
            "partitions are the items.",
            where=declared.where,
        )
    if declared.config not in (None, scatter.config):
        raise DefinitionError(
            f"Asset {scatter.name!r}: each={declared.name!r} declares config={declared.config!r}, but items are "
            f"configured with the asset that discovers them: declare it there, @scatter(config=...).",
            where=declared.where,
        )
    made = ItemAsset.__new__(ItemAsset)
    vars(made).update(vars(copy(declared)))
    made.parameter = _only_input(declared, f"each={declared.name!r} of asset {scatter.name!r}", "the item")
    made.name, made.scatter, made.dependencies, made.partitions = name, scatter.name, (), ItemPartitions()
    made.automation, made.routes, made.config = None, (), scatter.config
    return made


def _only_input(found: Asset, what: str, meaning: str) -> str:
    names = [one.parameter for one in found.dependencies if one.parameter is not None]
    if len(names) != 1 or len(found.dependencies) != 1:
        listed = ", ".join(one.asset for one in found.dependencies) or "nothing"
        raise DefinitionError(
            f"{what[0].upper()}{what[1:]} must take {meaning} alone (after {CONTEXT_PARAMETER!r}, if it wants "
            f"that), but takes {listed}. Put what it needs into the items, or declare a resource.",
            where=found.where,
        )
    return names[0]


SCATTER_KIND = "scatter"
"""Kind of the runs that consist of items."""

DEFAULT_QUEUE = "assets"


def items_run(step_id: int) -> str:
    """Return the id of the run of the items that a step discovers: the same for each of its attempts.

    Example:
        >>> items_run(7)
        'scatter-7'
    """
    return f"scatter-{step_id}"


def allowed_failures(maximum: float, total: int) -> int:
    """Return how many items may fail.

    Args:
        maximum: a number of items (int), or their share of all (float, 0 to 1).
        total: number of items.

    Example:
        >>> allowed_failures(0.29, 100), allowed_failures(5, 100)
        (29, 5)
    """
    # a little above, because 0.29 * 100 is a little below 29
    return math.floor(maximum * total + 1e-9) if type(maximum) is float else int(maximum)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewScatter:
    """What the steps of the items are to be like.

    Args:
        asset: name of the asset of the items.
        selection: what the run of the items is called for people.
        max_concurrency: most items placed at once in the fleet.
        max_failures: how many items may fail, when that is known before they are discovered.
        max_attempts: attempts of each item, when there are any repeats.
        repeats: whether repeats were asked for on an executor that makes none by itself.
        queue: queue of the items; the default one follows the step of a scatter that follows a backfill.
        follows_queue: whether the queue of the step serves instead of the default one.
        priority: priority of the items; None for that of the step.
        limits: named limits of the items.
        own_limits: names of the limits of the step that are not for its items.
        code_version: version of the items' code.
    """

    asset: str
    selection: str
    max_concurrency: int
    max_failures: int | None
    max_attempts: int
    repeats: bool
    queue: str
    follows_queue: bool
    priority: int | None
    limits: Mapping[str, Limit]
    own_limits: frozenset[str] = frozenset()
    code_version: str | None = None

    def limits_with(self, step: Mapping[str, Limit] | None) -> dict[str, Limit] | None:
        """Return the limits of an item: its own, and those that the executor put on the step."""
        extra = {name: value for name, value in (step or {}).items() if name not in self.own_limits}
        return {**self.limits, **extra} or None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScatterRecord:
    """A scatter: the step that discovers and gathers, and the run of its items.

    Args:
        run_id: the run of the items.
        step_id: the step.
        is_open: whether items are still being discovered.
        is_over: whether all items are over.
        total: number of items, when all are discovered.
        allowed: how many items may fail, when that is known.
        inputs: exact versions that the discovery read.
    """

    run_id: str
    step_id: int
    is_open: bool
    is_over: bool
    total: int | None = None
    allowed: int | None = None
    inputs: tuple[InputVersion, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenScatter:
    """The right of one attempt to add items.

    Args:
        new: what was asked for.
        run_id: the run of the items.
        step_id: the step.
        token: fencing token of the attempt; items are added under it.
        parent_key: encoded partition of the step.
        queue: queue of the items.
        priority: their priority.
        max_attempts: their attempts.
        limits: their named limits.
        durable: whether they are placed on a queue.
        previous: for the retry of a run: the scatter whose failures are repeated.
        is_blocked: whether cancelled items of an earlier run have not ended yet.
    """

    new: NewScatter
    run_id: str
    step_id: int
    token: int
    parent_key: str
    queue: str
    priority: int
    max_attempts: int
    limits: dict[str, Limit] | None
    durable: bool
    previous: ScatterRecord | None = None
    is_blocked: bool = False


class NewItem(NamedTuple):
    """An item to be added.

    Args:
        position: in the order of discovery, from 0.
        partition_key: encoded pair of partition and key, unique in the scatter.
        item: its text, see `flowstone.core.scatter`.
    """

    position: int
    partition_key: PartitionKey
    item: str


@dataclass(frozen=True, slots=True)
class ItemRow:
    """An item and how it ended.

    Args:
        position: in the order of discovery.
        step_id: its step.
        partition_key: encoded pair of partition and key.
        item: its text.
        state: its state.
        attempt: how many attempts it took.
        stored: its value, when it has one.
        error: text of its error.
        error_type: class of its error.
    """

    position: int
    step_id: int
    partition_key: PartitionKey
    item: str
    state: State
    attempt: int = 0
    stored: StoredOutput | None = None
    error: str | None = None
    error_type: str | None = None


@dataclass(frozen=True, slots=True)
class ItemCounts:
    """How many items of a scatter are in each state."""

    by_state: Mapping[State, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Number of items."""
        return sum(self.by_state.values())

    @property
    def succeeded(self) -> int:
        """Number of items with a value."""
        return self.by_state.get(State.COMPLETED, 0) + self.by_state.get(State.REUSED, 0)

    @property
    def failed(self) -> int:
        """Number of items that failed."""
        return self.by_state.get(State.FAILED, 0) + self.by_state.get(State.UPSTREAM_FAILED, 0)

    @property
    def cancelled(self) -> int:
        """Number of items that were cancelled."""
        return self.by_state.get(State.CANCELLED, 0)

    @property
    def skipped(self) -> int:
        """Number of items that had nothing to do."""
        return self.by_state.get(State.SKIPPED, 0)


WITH_VALUE = (State.COMPLETED, State.REUSED)
WITHOUT_VALUE = (State.FAILED, State.UPSTREAM_FAILED, State.CANCELLED)
