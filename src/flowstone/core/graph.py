"""The graph of assets: checked once when an app is built, then only read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from types import MappingProxyType
from typing import Any

from flowstone.core.asset import Asset
from flowstone.core.definition import PartitionsDefinition, ends, is_over, write_partition
from flowstone.core.dependency import Dependency
from flowstone.core.html_tables import html_table
from flowstone.core.mappings import PartitionMapping, default_mapping
from flowstone.core.partitions import KeySource, PartitionKey, decode_partition, encode_partition
from flowstone.core.partitions_by_time import TimePartitions
from flowstone.core.step import Target
from flowstone.errors import (
    CycleError,
    DefinitionError,
    DependencyNotReadyError,
    DuplicateAssetError,
    NotMaterializedError,
    OptionsError,
    UnknownAssetError,
    UnknownDependencyError,
    did_you_mean,
)

type OverTest = tuple[datetime, datetime, Callable[[PartitionKey], bool]]
"""Since when, and until when, which encoded partitions are over."""

_EVER = datetime.max.replace(tzinfo=UTC)
_NEVER = datetime.min.replace(tzinfo=UTC)


class _ByName(dict[str, Asset]):
    def __missing__(self, name: str) -> Asset:
        raise UnknownAssetError(name, self)


class AssetGraph:
    """All assets of an app with their dependencies, in an order in which they can run.

    Args:
        assets: the declared assets.

    Raises:
        DuplicateAssetError: two assets carry one name.
        UnknownDependencyError: a dependency is not among the assets.
        CycleError: assets depend on each other in a circle; names the path.
        DefinitionError: a partition mapping cannot work between two assets, or an asset declares routes to
            others than its direct downstream assets.

    Example:
        >>> from flowstone.core.asset import asset
        >>> @asset
        ... def a(): ...
        >>> @asset
        ... def b(a): ...
        >>> AssetGraph([b, a]).order
        ('a', 'b')
    """

    def __init__(self, assets: Iterable[Asset]) -> None:
        self._assets = _ByName(_by_name(assets))
        self.assets: Mapping[str, Asset] = MappingProxyType(self._assets)
        """The assets by name; an unknown name is refused with a suggestion."""
        self._check_dependencies()
        self._check_earlier_names()
        self.order = tuple(self._sorted())
        self._downstream: dict[str, list[str]] = {name: [] for name in self._assets}
        for name in self.order:
            for dependency in self._assets[name].dependencies:
                if dependency.asset != name:
                    self._downstream[dependency.asset].append(name)
        self._mappings = {
            (name, dependency.asset): self._mapping(self._assets[name], dependency)
            for name in self.order
            for dependency in self._assets[name].dependencies
        }
        self.over_tests: dict[str, OverTest] = {}
        """What `Completeness` found about assets by time, with the times between which it holds."""
        self._routers: dict[str, list[str]] = {}
        for name in self.order:
            self._add_routes(self._assets[name])

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return html_table(
            f"{len(self)} assets",
            ("asset", "inputs", "partitions", "group", "description"),
            (
                (
                    one.name,
                    ", ".join(dependency.asset for dependency in one.dependencies),
                    None if one.partitions is None else repr(one.partitions),
                    one.group,
                    (one.description or "").partition("\n")[0],
                )
                for one in self
                if not one.hidden
            ),
        )

    def bound(self, source: KeySource) -> AssetGraph:
        """Return the graph with dynamic partitions that get their keys from `source`; itself if there are none."""
        assets = [one.bound(source) for one in self._assets.values()]
        unchanged = all(one is self._assets[one.name] for one in assets)
        return self if unchanged else AssetGraph(assets)

    def __getitem__(self, name: str) -> Asset:
        """Return an asset by name; raise UnknownAssetError with a suggestion."""
        return self._assets[name]

    def __contains__(self, name: object) -> bool:
        return name in self._assets

    def __iter__(self) -> Iterator[Asset]:
        return (self._assets[name] for name in self.order)

    def __len__(self) -> int:
        return len(self._assets)

    def label(self, name: str, key: str) -> str:
        """Return an encoded partition of an asset as people write it; the asset may be one that is gone."""
        found = self._assets.get(name)
        return write_partition(None if found is None else found.partitions, key)

    def own(self, asset: Asset) -> Asset:
        """Return the asset of this graph that an asset object stands for.

        Raises:
            UnknownAssetError: there is none of its name.
            OptionsError: there is one, and it was declared somewhere else.
        """
        found = self[asset.name]
        if found.where != asset.where:
            raise OptionsError(
                f"This asset {asset.name!r} ({asset.where}) is not the one of this app, which is declared at "
                f"{found.where}. Give the name, {asset.name!r}, or make the app with this asset."
            )
        return found

    def describe(self, name: str, key: str) -> str:
        """Return an asset and its encoded partition as people read it: `orders [2024-01-31]`."""
        return f"{name} [{self.label(name, key)}]" if key else name

    def not_ready(self, target: Target, missing: Sequence[Target], now: datetime) -> DependencyNotReadyError:
        """Return the error for a partition of an asset some of whose inputs are missing."""
        return DependencyNotReadyError(
            *target, missing, allow_incomplete=self._is_unfinished(target, now), label=self.label
        )

    def not_materialized(self, target: Target, now: datetime, last: str) -> NotMaterializedError:
        """Return the error for a partition of an asset for which nothing is committed, and what happened last."""
        return NotMaterializedError(
            *target, last=last, allow_incomplete=self._is_unfinished(target, now), label=self.label
        )

    def _is_unfinished(self, target: Target, now: datetime) -> bool:
        found = self._assets.get(target[0])
        return found is not None and not found.allow_incomplete and not is_over(found.partitions, target[1], now)

    def over_at(self, name: str, key: PartitionKey) -> datetime | None:
        """Return when an encoded partition of an asset is over, where that is a moment."""
        definition = self[name].partitions
        return None if definition is None else definition.complete_at(decode_partition(key))

    def mapping(self, downstream: str, upstream: str) -> PartitionMapping:
        """Return how partitions of `downstream` map to those of its dependency `upstream`."""
        return self._mappings[downstream, upstream]

    def reads_itself(self, name: str) -> bool:
        """Whether an asset reads earlier partitions of its own."""
        return (name, name) in self._mappings

    def routers(self, name: str) -> Sequence[str]:
        """Return the assets that decide whether this one runs: those with a route to it."""
        return self._routers.get(name, ())

    def upstream(self, name: str, *, depth: int | None = None) -> set[str]:
        """Return what an asset depends on, without itself; `depth` limits the number of steps."""
        return self._walk(name, lambda one: [d.asset for d in self[one].dependencies if d.asset != one], depth)

    def downstream(self, name: str, *, depth: int | None = None) -> set[str]:
        """Return what depends on an asset, without itself; `depth` limits the number of steps."""
        self[name]
        return self._walk(name, self._downstream.__getitem__, depth)

    def _walk(self, name: str, neighbours: object, depth: int | None) -> set[str]:
        assert callable(neighbours)
        seen: set[str] = set()
        level = {name}
        while level and (depth is None or depth > 0):
            level = {other for one in level for other in neighbours(one)} - seen
            seen |= level
            depth = None if depth is None else depth - 1
        return seen

    def _check_dependencies(self) -> None:
        for one in self._assets.values():
            for dependency in one.dependencies:
                if dependency.asset not in self._assets:
                    raise UnknownDependencyError(one.name, dependency.asset, self._assets, where=one.where)

    def _check_earlier_names(self) -> None:
        taken: dict[str, str] = {}
        for one in self._assets.values():
            for earlier in one.renamed_from:
                if earlier in self._assets:
                    raise DefinitionError(
                        f"Asset {one.name!r} says renamed_from={earlier!r}, but {earlier!r} is declared too: a "
                        "history can belong to one of them only. Remove the option, or the other asset.",
                        where=one.where,
                    )
                if earlier in taken:
                    raise DefinitionError(
                        f"The assets {taken[earlier]!r} and {one.name!r} both say renamed_from={earlier!r}.",
                        where=one.where,
                    )
                taken[earlier] = one.name

    def _add_routes(self, router: Asset) -> None:
        below = self._downstream[router.name]
        for name in router.routes:
            if name not in below:
                listed = ", ".join(map(repr, below)) or "none"
                raise DefinitionError(
                    f"Asset {router.name!r} declares a route to {name!r}, which is not directly downstream of it."
                    f"{did_you_mean(name, below)} Its direct downstream assets: {listed}.",
                    where=router.where,
                )
            self._routers.setdefault(name, []).append(router.name)

    def _sorted(self) -> Iterator[str]:
        """Yield names so that each comes after its dependencies (depth first, without recursion)."""
        done: set[str] = set()
        for root in self._assets:
            path: list[tuple[str, Iterator[Dependency]]] = []
            entered: dict[str, None] = {}
            if root not in done:
                path.append((root, self._others(root)))
                entered[root] = None
            while path:
                name, rest = path[-1]
                following = next((d.asset for d in rest if d.asset not in done), None)
                if following is None:
                    path.pop()
                    del entered[name]
                    done.add(name)
                    yield name
                elif following in entered:
                    raise self._cycle([*entered], following)
                else:
                    entered[following] = None
                    path.append((following, self._others(following)))

    def _others(self, name: str) -> Iterator[Dependency]:
        """Yield the dependencies of an asset on others: its own earlier partitions are no circle."""
        return (one for one in self._assets[name].dependencies if one.asset != name)

    def _cycle(self, entered: list[str], closing: str) -> CycleError:
        circle = [*entered[entered.index(closing) :], closing]
        data_flow = list(reversed(circle))
        return CycleError(data_flow, [self._assets[name].where for name in data_flow])

    def _mapping(self, asset: Asset, dependency: Dependency) -> PartitionMapping:
        upstream = self._assets[dependency.asset]
        try:
            mapping = dependency.mapping or default_mapping(asset.partitions, upstream.partitions)
            mapping.validate(asset.partitions, upstream.partitions)
        except DefinitionError as error:
            raise DefinitionError(
                f"Asset {asset.name!r} cannot read {upstream.name!r}: {error}", where=asset.where
            ) from error
        return mapping


class Completeness:
    """Which partitions of the assets are over at one moment; an asset is looked at once, however many are asked.

    Args:
        graph: the assets.
        now: the moment, as an aware datetime.
    """

    def __init__(self, graph: AssetGraph, now: datetime) -> None:
        self.now = now
        self._graph = graph
        self._tests: dict[str, Callable[[PartitionKey], bool]] = {}

    def is_over(self, name: str, key: PartitionKey) -> bool:
        """Whether this encoded partition of an asset is complete."""
        return self.of(name)(key)

    def of(self, name: str) -> Callable[[PartitionKey], bool]:
        """Return what knows of each encoded partition of an asset whether it is complete."""
        test = self._tests.get(name)
        if test is None:
            since, until, known = self._graph.over_tests.get(name, _UNKNOWN)
            test = self._tests[name] = known if since <= self.now < until else self._found(name, since)
        return test

    def _found(self, name: str, kept_since: datetime) -> Callable[[PartitionKey], bool]:
        definition = self._graph[name].partitions
        if not isinstance(definition, TimePartitions) or (last := definition.last(self.now)) is None:
            return self._test(definition)
        test = _until(last)
        following = None if last == definition.end else definition.shift(last, 1)
        until = _EVER if following is None else definition.window(following).end
        # whoever computes partitions one by one asks again and again within the same hour or day
        since = definition.window(last).end
        if since > kept_since:
            self._graph.over_tests[name] = since, until, test
        return test

    def _test(self, definition: PartitionsDefinition | None) -> Callable[[PartitionKey], bool]:
        if definition is None or not ends(definition):
            return lambda key: True
        if isinstance(definition, TimePartitions):
            return lambda key: False  # none is over
        if type(definition).is_complete is PartitionsDefinition.is_complete:
            known = {encode_partition(key) for key in definition.keys(self.now)}
            return known.__contains__
        return lambda key: is_over(definition, key, self.now)


def _until(last: date) -> Callable[[PartitionKey], bool]:
    """Return what knows which encoded partitions do not come after one."""
    text = encode_partition(last)
    if type(last) is date:  # the text of dates is in their order
        return lambda key: key <= text
    moment: Any = last
    return lambda key: bool(decode_partition(key) <= moment)


_UNKNOWN: OverTest = (_NEVER, _NEVER, lambda key: False)


def _with_companions(assets: Iterable[Asset]) -> Iterator[Asset]:
    for one in assets:
        yield one
        if isinstance(one, Asset):
            yield from one.companions


def _by_name(assets: Iterable[Asset]) -> dict[str, Asset]:
    found: dict[str, Asset] = {}
    for one in _with_companions(assets):
        if not isinstance(one, Asset):
            raise DefinitionError(
                f"{one!r} is not an asset. Decorate the function with @asset before passing it to FlowStone."
            )
        if one.name in found and found[one.name] is not one:
            raise DuplicateAssetError(one.name, found[one.name].where, one.where)
        found[one.name] = one
    return found
