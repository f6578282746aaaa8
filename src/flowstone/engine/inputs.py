"""Which versions a step reads, and their values as arguments of its function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flowstone.core.asset import Asset
from flowstone.core.graph import AssetGraph
from flowstone.core.mapping import PartitionMapping, SameKey
from flowstone.core.output import StoredOutput
from flowstone.core.partition import decode_partition, encode_partition
from flowstone.core.step import Claim, CommittedOutput, InputVersion, Target
from flowstone.errors import DependencyNotReadyError
from flowstone.protocols import Catalog


@dataclass(slots=True)
class InputPlan:
    """How one dependency of an asset is read."""

    parameter: str | None
    upstream: Asset
    downstream: Asset
    mapping: PartitionMapping
    same_key: bool
    many: bool

    def keys(self, key: str, now: datetime) -> list[str]:
        """Return the encoded upstream partitions that a downstream partition reads."""
        if self.same_key:
            return [key]
        partitions = self.mapping.upstream(
            decode_partition(key),
            downstream=self.downstream.partitions,
            upstream=self.upstream.partitions,
            now=now,
        )
        return [encode_partition(partition) for partition in partitions]


@dataclass(slots=True)
class ResolvedInputs:
    """The exact versions a step reads, in the order of its dependencies."""

    plans: Sequence[InputPlan]
    keys: list[list[str]]
    found: list[list[CommittedOutput]]
    missing: list[Target]
    error: Exception | None = None
    """What a partition mapping raised: that is a failure of the step, as any other of user code."""

    def problem(self, claim: Claim) -> Exception | None:
        """Return why the step cannot run, if so."""
        if self.error is None and self.missing:
            return DependencyNotReadyError(claim.asset, claim.partition, self.missing)
        return self.error

    def versions(self) -> tuple[InputVersion, ...]:
        """Return the lineage of the step."""
        return tuple(
            [
                InputVersion(plan.parameter or plan.upstream.name, plan.upstream.name, key, version.step_id)
                for plan, keys, versions in zip(self.plans, self.keys, self.found, strict=True)
                for key, version in zip(keys, versions, strict=True)
            ]
        )

    def arguments(self, load: Callable[[StoredOutput], object]) -> dict[str, Any]:
        """Load the values and return them by parameter; several partitions come as a dict."""
        arguments: dict[str, Any] = {}
        for plan, keys, versions in zip(self.plans, self.keys, self.found, strict=True):
            if plan.parameter is None:
                continue
            if plan.many:
                arguments[plan.parameter] = {
                    decode_partition(key): load(version.stored)
                    for key, version in zip(keys, versions, strict=True)
                }
            else:
                arguments[plan.parameter] = load(versions[0].stored)
        return arguments


NO_INPUTS = ResolvedInputs((), [], [], [])


class InputReader:
    """Resolves the inputs of steps against the catalog, many steps in one question."""

    def __init__(self, graph: AssetGraph, catalog: Catalog) -> None:
        self._catalog = catalog
        self._plans = {asset.name: tuple(_plans(graph, asset)) for asset in graph}

    def plans(self, asset: str) -> tuple[InputPlan, ...]:
        """Return how each dependency of an asset is read."""
        return self._plans[asset]

    def targets(self, asset: str, key: str, now: datetime) -> list[Target]:
        """Return every (asset, partition) that one partition of an asset reads."""
        return [(plan.upstream.name, upstream) for plan in self._plans[asset] for upstream in plan.keys(key, now)]

    def resolve(self, claims: Sequence[Claim]) -> list[ResolvedInputs]:
        """Find the versions that each claimed step reads; what is missing is named in the result."""
        resolved: list[ResolvedInputs] = []
        wanted: list[tuple[str, str, str]] = []
        for claim in claims:
            plans = self._plans[claim.asset]
            if not plans:
                resolved.append(NO_INPUTS)
                continue
            try:
                keys = [plan.keys(claim.partition, claim.started_at) for plan in plans]
            except Exception as error:  # noqa: BLE001 - a mapping may be a function of the user
                resolved.append(ResolvedInputs((), [], [], [], error))
                continue
            for plan, upstream_keys in zip(plans, keys, strict=True):
                name = plan.upstream.name
                wanted.extend([(claim.run_id, name, key) for key in upstream_keys])
            resolved.append(ResolvedInputs(plans, keys, [], []))
        if wanted:
            self._fill(resolved, wanted)
        return resolved

    def _fill(self, resolved: list[ResolvedInputs], wanted: list[tuple[str, str, str]]) -> None:
        answers = iter(zip(wanted, self._catalog.resolve(wanted), strict=True))
        for inputs in resolved:
            for keys in inputs.keys:
                versions: list[CommittedOutput] = []
                for _key in keys:
                    (_run, asset, partition), version = next(answers)
                    if version is None:
                        inputs.missing.append((asset, partition))
                    else:
                        versions.append(version)
                inputs.found.append(versions)


def _plans(graph: AssetGraph, asset: Asset) -> list[InputPlan]:
    plans = []
    for dependency in asset.dependencies:
        upstream = graph[dependency.asset]
        mapping = graph.mapping(asset.name, upstream.name)
        same = type(mapping) is SameKey and asset.partitions == upstream.partitions
        plans.append(InputPlan(dependency.parameter, upstream, asset, mapping, same, mapping.many))
    return plans
