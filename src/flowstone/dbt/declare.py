"""`dbt_assets`: an asset for each node of a dbt project, a check for each of its tests.

A step runs one `dbt build` for its node and the tests that belong to it; the checks of the asset take the results
of that run, so that a test is not a process of its own. A test of several nodes runs once all of them are there,
as in dbt: it belongs to the one that reads all others. Where no node does, the test is an asset of its own, which
waits for them, and for which those wait that read all of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from flowstone.core.asset import Asset
from flowstone.core.automation.condition import Condition, Paced
from flowstone.core.check import Check, CheckContext, CheckResult
from flowstone.core.context import AssetContext
from flowstone.core.declaring import is_storable, is_text, known_options, shown
from flowstone.core.definition import PartitionsDefinition
from flowstone.core.dependency import DependencyLike, dep
from flowstone.core.limits import LimitLike
from flowstone.core.published import Published
from flowstone.core.retry import RetryPolicy
from flowstone.dbt.command import DbtCommand, DbtProjectError, check_arguments
from flowstone.dbt.manifest import DbtNode, DbtTest, Manifest, path_of, read_manifest
from flowstone.dbt.selection import select_nodes
from flowstone.dbt.steps import DbtConfig, DbtSteps, PartitionVars, default_partition_vars
from flowstone.errors import DefinitionError, UnknownOptionError, did_you_mean

type Options = Callable[[DbtNode], Mapping[str, Any] | None]

_RETRY = RetryPolicy(fatal_on=(DbtProjectError,))
_OPTIONS = (
    *("name", "deps", "partitions", "io", "retry", "timeout", "queue", "priority", "concurrency", "tags", "group"),
    *("description", "code_version", "automation", "allow_incomplete", "renamed_from"),
)


class DbtAsset(Asset[..., Any]):
    """The asset of a node of dbt, or of a test of several nodes.

    Attributes:
        unique_id: dbt's name of it.
        node: the node; None for a test.
    """

    portable = False  # its function starts a process, which its cancellation token ends
    unique_id: str
    node: DbtNode | None


class DbtAssets(Sequence[DbtAsset]):
    """The assets of a dbt project; made by `dbt_assets`.

    A sequence of assets, for `FlowStone([*shop, ...], checks=shop.checks)`; `shop["orders"]` is one of them.

    Attributes:
        checks: the tests of the project.
        manifest: the manifest.
        limits: the fleet-wide limits under which each step runs, by name; for assets of Python that write to the
            same DuckDB file.
    """

    def __init__(
        self,
        manifest: Manifest,
        assets: Sequence[DbtAsset],
        checks: Sequence[Check],
        limits: Mapping[str, LimitLike],
    ) -> None:
        self.manifest = manifest
        self.checks = tuple(checks)
        self.limits = dict(limits)
        self._assets = tuple(assets)
        self._by_name = {one.name: one for one in assets}

    def __getitem__(self, place: Any) -> Any:
        if not isinstance(place, str):
            return self._assets[place]
        if place not in self._by_name:
            raise KeyError(f"dbt has no asset {place!r} here.{did_you_mean(place, self._by_name)}")
        return self._by_name[place]

    def __contains__(self, item: object) -> bool:
        return item in self._by_name or item in self._assets

    def __iter__(self) -> Iterator[DbtAsset]:
        return iter(self._assets)

    def __len__(self) -> int:
        return len(self._assets)

    def __repr__(self) -> str:
        return f"<{len(self)} assets and {len(self.checks)} checks of the dbt project {self.manifest.project!r}>"


@known_options("dbt_assets()")
def dbt_assets(
    manifest: str | Path | Mapping[str, Any],
    *,
    select: str | Iterable[str] | None = None,
    exclude: str | Iterable[str] | None = None,
    sources: Mapping[str, str | Asset] | None = None,
    partitions: PartitionsDefinition | None = None,
    partition_vars: PartitionVars | None = None,
    vars: Mapping[str, Any] | None = None,  # noqa: A002 - the word of dbt
    blocking: bool = True,
    options: Options | None = None,
    queue: str = "assets",
    retry: RetryPolicy | None = None,
    timeout: timedelta | float | None = None,
    concurrency: Mapping[str, LimitLike] | None = None,
    automation: Condition | Paced | None = None,
    io: str | None = None,
    project_dir: str | Path | None = None,
    profiles_dir: str | Path | None = None,
    profile: str | None = None,
    target: str | None = None,
    dbt_executable: str | Path | None = None,
    arguments: Iterable[str] = (),
    environment: Mapping[str, str] | None = None,
) -> DbtAssets:
    """Declare the models, seeds and snapshots of a dbt project as assets, and its tests as their checks.

    Args:
        manifest: path of the manifest.json that `dbt parse` wrote, of the project with it, or its content.
        select: a part of the project, in dbt's words: `"tag:nightly+ path:models/staging"`; all of it by default.
        exclude: what is left out, in the same words. What a chosen node reads of it is taken to be there.
        sources: assets that make sources, such as `{"raw.orders": orders}`. Others become assets that observe:
            freshness and tests of the source, where the project declares them. A source may also name its asset
            itself: `meta: {flowstone: {asset: orders}}`.
        partitions: of incremental models.
        partition_vars: makes `--vars` of a partition; by default `partition`, and for partitions of time
            `partition_start` and `partition_end`. Models of the strategy microbatch get their event time instead.
        vars: variables of dbt for every step.
        blocking: whether a test of severity error fails the step, so that nothing downstream runs, as with
            `dbt build`; otherwise it is recorded.
        options: called with each node; returns options of `asset` for it, such as `{"name": "shop_orders"}`;
            `deps` come to those that the project knows.
        queue: see `asset`; so are `retry`, `timeout`, `concurrency`, `automation` and `io`. By default a project
            that does not parse or compile is not tried again; with DuckDB one step writes at a time, fleet-wide.
        project_dir: directory of the project; by default the one in which the manifest lies.
        profiles_dir: directory of profiles.yml.
        profile: name of the profile.
        target: name of the target.
        dbt_executable: name or path of dbt, which may lie in an environment of its own.
        arguments: more options of dbt, such as `["--threads", "4"]`.
        environment: more environment variables of dbt.

    Returns:
        The assets, with their `checks`.

    Raises:
        DefinitionError: an argument cannot work; says what to do.

    Example:
        >>> node = {"resource_type": "model", "name": "orders", "package_name": "shop", "fqn": ["shop", "orders"]}
        >>> written = {"metadata": {"project_name": "shop"}, "nodes": {"model.shop.orders": node}}
        >>> shop = dbt_assets(written, project_dir="shop")
        >>> shop["orders"].group, sorted(shop["orders"].tags)
        ('shop', ['dbt', 'model'])
    """
    read, found = read_manifest(manifest)
    limits: dict[str, LimitLike] = {**_writer(read), **_mapping("concurrency", concurrency)}
    command = DbtCommand(
        executable=_text("dbt_executable", dbt_executable),
        project_dir=_directory("project_dir", found if project_dir is None else project_dir),
        profiles_dir=None if profiles_dir is None else _directory("profiles_dir", profiles_dir),
        profile=_text("profile", profile),
        target=_text("target", target),
        arguments=check_arguments(arguments),
        environment=_environment(environment),
    )
    shared = {"queue": queue, "retry": retry or _RETRY, "timeout": timeout, "automation": automation, "io": io}
    declaring = _Declaring(
        read,
        select_nodes(read, select, exclude),
        DbtSteps(read, command, _variables(vars), partition_vars or default_partition_vars),
        shared=shared,
        limits=limits,
        partitions=partitions,
        blocking=blocking,
        options=options,
        outside=_outside(read, sources),
    )
    return DbtAssets(read, *declaring.declare(), limits)


def _mapping(option: str, given: Any) -> dict[str, Any]:
    if given is not None and (not isinstance(given, Mapping) or not all(is_text(name) for name in given)):
        raise DefinitionError(f"dbt_assets({option}={shown(given)}): give a mapping by name.")
    return dict(given or {})


def _text(option: str, given: object) -> str | None:
    """Return an option of the command line, which can hold no NUL."""
    if given is None:
        return None
    if not is_text(written := str(given) if isinstance(given, Path) else given):
        raise DefinitionError(f"dbt_assets({option}={shown(given)}): give its name, as text.")
    return str.__str__(written)  # that of a member of an enumeration is its name


def _environment(given: Any) -> dict[str, str]:
    """Return environment variables as a process takes them."""
    found: dict[str, str] = {}
    for name, value in _mapping("environment", given).items():
        if "=" in name:
            raise DefinitionError(f"dbt_assets(environment={{{name!r}: ...}}): no variable has = in its name.")
        if not isinstance(value, str | int | float | Path) or not is_storable(str(value)):
            # not the value: it may be a password
            raise DefinitionError(f"dbt_assets(environment={{{name!r}: ...}}): give text, or a number.")
        found[name] = str.__str__(value) if isinstance(value, str) else str(value)
    return found


def _variables(given: Any) -> dict[str, Any]:
    """Return variables of dbt, which go to it as JSON."""
    found = _mapping("vars", given)
    try:
        json.dumps(found, default=str, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise DefinitionError(f"dbt_assets(vars={shown(given)}): they cannot be JSON ({error}).") from None
    return found


def _directory(option: str, given: object) -> Path:
    if given is None:
        raise DefinitionError("dbt_assets(...): nothing says where the project lies; give project_dir=.")
    if not isinstance(given, str | Path):
        raise DefinitionError(f"dbt_assets({option}={shown(given)}): give the path of a directory.")
    return path_of(option, given)


def _writer(manifest: Manifest) -> dict[str, LimitLike]:
    """DuckDB takes one writing process at a time."""
    if manifest.adapter != "duckdb":
        return {}
    database = next((node.database for node in manifest.nodes.values() if node.database), manifest.project)
    return {f"duckdb {database}.duckdb": 1}  # the name that `DuckDBTableIO` gives it


def _outside(manifest: Manifest, sources: object) -> dict[str, str]:
    """Return the names of the assets that make sources, by id of the source."""
    if sources is not None and not isinstance(sources, Mapping):
        raise DefinitionError(f'dbt_assets(sources={shown(sources)}): give a mapping: {{"raw.orders": orders}}.')
    by_name = {one.name: unique_id for unique_id, one in manifest.sources.items()}
    found: dict[str, str] = {}
    for unique_id, source in manifest.sources.items():
        meta = source.meta.get("flowstone")
        if isinstance(meta, Mapping) and is_text(meta.get("asset")):
            found[unique_id] = meta["asset"]
    for name, asset in (sources or {}).items():
        if name not in by_name:
            hint = did_you_mean(str(name), by_name)
            raise DefinitionError(
                f"dbt_assets(sources=...): the project {manifest.project!r} has no source {shown(name)}.{hint} "
                f"Known: {', '.join(sorted(by_name)) or 'none'}."
            )
        made_by = asset if isinstance(asset, str) else getattr(asset, "name", None)
        if not is_text(made_by):
            raise DefinitionError(f"dbt_assets(sources={{{name!r}: {shown(asset)}}}): give an asset, or its name.")
        found[by_name[name]] = str(made_by)
    return found


class _Declaring:
    """Makes the assets and checks of one call of `dbt_assets`."""

    def __init__(
        self,
        manifest: Manifest,
        chosen: set[str],
        runner: DbtSteps,
        *,
        shared: Mapping[str, Any],
        limits: Mapping[str, LimitLike],
        partitions: PartitionsDefinition | None,
        blocking: bool,
        options: Options | None,
        outside: Mapping[str, str],
    ) -> None:
        if options is not None and not callable(options):
            raise DefinitionError(f"dbt_assets(options={shown(options)}): give a function of a node.")
        if not isinstance(blocking, bool):
            raise DefinitionError(f"dbt_assets(blocking={shown(blocking)}): give True or False.")
        self._manifest = manifest
        self._chosen = chosen
        self._runner = runner
        self._shared = shared
        self._limits = limits
        self._partitions = partitions
        self._blocking = blocking
        self._outside = outside
        self._order = [one for one in manifest.order if one in chosen]
        own = [one for one in self._order if one not in outside]
        self._given = {one: self._options_of(options, manifest[one]) for one in own}
        self._names = {**outside, **{one: str(self._given[one].get("name") or manifest[one].name) for one in own}}
        self._tests, self._alone = self._hosts()

    def declare(self) -> tuple[list[DbtAsset], list[Check]]:
        """Return the assets and the checks."""
        waiting = self._waiting()
        own = [self._manifest[one] for one in self._order if one not in self._outside]
        assets = [self._asset(node, waiting.get(node.unique_id, ())) for node in own]
        assets += [self._asset_of_test(test) for test in self._alone]
        self._check_names(assets)
        checks = [self._check(test, self._names[host]) for host, tests in self._tests.items() for test in tests]
        checks += [self._check(test, test.name) for test in self._alone]
        checks += [self._freshness(node) for node in own if node.is_source and node.has_freshness]
        return assets, checks

    @staticmethod
    def _options_of(options: Options | None, node: DbtNode) -> dict[str, Any]:
        found = None if options is None else options(node)
        if found is None:
            return {}
        if not isinstance(found, Mapping):
            raise DefinitionError(
                f"dbt_assets(options=...): it returned {shown(found)} for {node.unique_id}; return a dict of "
                'options of an asset, such as {"name": "orders"}, or None.'
            )
        for name in found:
            if name not in _OPTIONS:
                raise UnknownOptionError(f"dbt_assets(options=...) for {node.unique_id}", str(name), _OPTIONS)
        deps = found.get("deps", ())
        if isinstance(deps, str | Mapping) or not isinstance(deps, Iterable):
            raise DefinitionError(
                f"dbt_assets(options=...): deps={shown(deps)} for {node.unique_id}; give a list of assets."
            )
        return dict(found)

    def _hosts(self) -> tuple[dict[str, list[DbtTest]], list[DbtTest]]:
        """Find the node to which each test belongs, and the tests that belong to none alone.

        A test that reads something that was not chosen, and that nothing chosen stands on, is left out: who knows
        whether that is there.
        """
        hosts: dict[str, list[DbtTest]] = {}
        alone: list[DbtTest] = []
        above = self._manifest.above
        known = self._chosen.union(*(above[one] for one in self._chosen))
        for test in self._manifest.tests.values():
            read = [one for one in test.parents if one in self._chosen]
            if not read or not known.issuperset(test.parents):
                continue
            host = next((one for one in read if all(other in above[one] for other in read if other != one)), None)
            # what an asset of Python makes may be published by its commit only: its tests come after that
            if host is None or host in self._outside:
                alone.append(test)
            else:
                hosts.setdefault(host, []).append(test)
        return hosts, alone

    def _waiting(self) -> dict[str, list[str]]:
        """Return the tests that stand between nodes, as in dbt: what reads all that a test reads waits for it."""
        found: dict[str, list[str]] = {}
        for test in self._alone:
            if not (test.is_error and self._blocking):
                continue
            parents = self._chosen.intersection(test.parents)
            below = {one for one in self._order if parents <= self._manifest.above[one]}
            for one in below:
                if below.isdisjoint(self._manifest.above[one]):
                    found.setdefault(one, []).append(test.name)
        return found

    def _asset(self, node: DbtNode, waits_for: Sequence[str]) -> DbtAsset:
        tests = self._tests.get(node.unique_id, [])
        run = self._runner.observe if node.is_source else self._runner.build

        def build(context: AssetContext) -> Published:
            return run(node, tests, context)

        partitioned = node.materialized == "incremental" and self._partitions is not None
        limits = dict(self._limits)
        if partitioned:
            limits[f"dbt:{node.unique_id}"] = 1  # partitions of one table, which dbt does not keep apart
        own = dict(self._given[node.unique_id])
        deps: list[DependencyLike] = [*self._read(node.parents), *(dep(one) for one in waits_for)]
        deps += own.pop("deps", ())
        defaults = {
            "name": self._names[node.unique_id],
            "deps": deps,
            "partitions": self._partitions if partitioned else None,
            "concurrency": limits,
            "tags": ["dbt", node.kind, *node.tags],
            "group": node.group or node.package,
            "description": _description(node),
            "code_version": node.code or None,
            "config": DbtConfig,
        }
        return self._made(build, node.unique_id, node, node.path, {**self._shared, **defaults, **own})

    def _read(self, parents: Sequence[str]) -> list[DependencyLike]:
        """Return dependencies; one asset of Python may make several sources."""
        return [dep(name) for name in dict.fromkeys(self._names[one] for one in parents if one in self._chosen)]

    def _asset_of_test(self, test: DbtTest) -> DbtAsset:
        def run(context: AssetContext) -> dict[str, Any]:
            return self._runner.try_alone(test, context)

        options = {
            "name": test.name,
            "deps": self._read(test.parents),
            "concurrency": self._limits,
            "tags": ["dbt", "test"],
            "group": self._manifest.project,
            "description": test.description or "A test of dbt that reads several nodes.",
        }
        return self._made(run, test.unique_id, None, test.path, {**self._shared, **options})

    def _made(
        self,
        function: Callable[[AssetContext], Any],
        unique_id: str,
        node: DbtNode | None,
        path: str,
        options: Mapping[str, Any],
    ) -> DbtAsset:
        made = DbtAsset(function, **options)
        made.unique_id, made.node = unique_id, node
        made.where = f"{self._runner.command.project_dir / path}:1"
        return made

    def _check(self, test: DbtTest, asset: str) -> Check:
        def passes(context: CheckContext) -> CheckResult:
            return self._runner.check(test, context)

        made = Check(
            passes,
            asset,
            name=test.name,
            blocking=self._blocking and test.is_error,
            severity="error" if test.is_error else "warning",
            description=test.description,
        )
        made.where = f"{self._runner.command.project_dir / test.path}:1"
        return made

    def _freshness(self, source: DbtNode) -> Check:
        return Check(
            _freshness_of(self._runner, source),
            self._names[source.unique_id],
            name="freshness",
            description="As fresh as the project demands.",
        )

    def _check_names(self, assets: Sequence[DbtAsset]) -> None:
        seen: dict[str, str] = {}
        for one in assets:
            if one.name in seen:
                raise DefinitionError(
                    f"{seen[one.name]} and {one.unique_id} would both be the asset {one.name!r}. Name one of them "
                    'with options=lambda node: {"name": f"{node.package}.{node.name}"}.'
                )
            seen[one.name] = one.unique_id


def _freshness_of(runner: DbtSteps, source: DbtNode) -> Callable[[CheckContext], CheckResult]:
    def is_fresh(context: CheckContext) -> CheckResult:
        return runner.freshness(source, context)

    return is_fresh


def _description(node: DbtNode) -> str:
    """Return the description of a node with those of its columns."""
    lines = [node.description.strip()] if node.description.strip() else []
    described = {name: column for name, column in node.columns.items() if column}
    if described:
        lines += ["", "Columns:"] if lines else ["Columns:"]
        for name, column in described.items():
            kind = f" ({column['data_type']})" if "data_type" in column else ""
            lines.append(
                f"- {name}{kind}: {column['description']}" if "description" in column else f"- {name}{kind}"
            )
    return "\n".join(lines)
