"""What a step of dbt does: a node built with its tests, a source observed, a test by itself, and their checks."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any

from flowstone.core.check import CheckContext, CheckResult
from flowstone.core.context import AssetContext
from flowstone.core.declaring import shown
from flowstone.core.definition import PartitionsDefinition, write_partition
from flowstone.core.partitions import Partition
from flowstone.core.partitions_by_time import TimePartitions
from flowstone.core.published import Published
from flowstone.dbt.command import DbtCommand, DbtError, DbtProjectError, DbtRun, NodeResult
from flowstone.dbt.manifest import DbtNode, DbtTest, Manifest
from flowstone.errors import DefinitionError

type PartitionVars = Callable[[PartitionsDefinition, Partition], Mapping[str, Any]]

_SEVERITIES = {"fail": "error", "error": "error", "warn": "warning"}
_MAX_KEPT = 10_000


@dataclass
class DbtConfig:
    """What a run may configure of a step of dbt.

    Args:
        full_refresh: build incremental models and seeds anew; not one partition of a model, which would drop the
            others.
        vars: variables of dbt, over those of the declaration.
    """

    full_refresh: bool = False
    vars: dict[str, Any] = field(default_factory=dict)


def default_partition_vars(definition: PartitionsDefinition, partition: Partition) -> dict[str, str]:
    """Return the variables of dbt for a partition: its label, and in UTC where its time begins and ends.

    Example:
        >>> from datetime import date
        >>> from flowstone import DailyPartitions
        >>> default_partition_vars(DailyPartitions("2024-01-01"), date(2024, 1, 2))["partition_end"]
        '2024-01-03 00:00:00'
    """
    found = {"partition": definition.label(partition)}
    if isinstance(definition, TimePartitions):
        window = definition.window(partition)
        for name, moment in (("partition_start", window.start), ("partition_end", window.end)):
            found[name] = f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
    return found


class DbtSteps:
    """Runs dbt for steps, and keeps what tests came to for the checks of the step."""

    def __init__(
        self, manifest: Manifest, command: DbtCommand, variables: Mapping[str, Any], partition_vars: PartitionVars
    ) -> None:
        self._manifest = manifest
        self.command = command
        self._variables = variables
        self._partition_vars = partition_vars
        self._kept: OrderedDict[tuple[str, int, int, str], NodeResult] = OrderedDict()
        self._lock = threading.Lock()

    def build(self, node: DbtNode, tests: Sequence[DbtTest], context: AssetContext) -> Published:
        """Build a node, and run its tests."""
        options = self._selecting([node.fqn, *(test.fqn for test in tests)], node)
        definition = context.asset.partitions
        if context.config is not None and context.config.full_refresh:
            if definition is not None:
                raise DefinitionError(
                    f"config={{'full_refresh': True}} of {node.name!r} is refused: dbt would make the table anew "
                    "with this one partition, and drop the others. Backfill with force=True, which replaces each "
                    "partition; or build the table anew with dbt and backfill all partitions."
                )
            options.append("--full-refresh")
        if node.is_microbatch and isinstance(definition, TimePartitions):
            window = definition.window(context.partition)
            for name, moment in (("start", window.start), ("end", window.end)):
                options += [f"--event-time-{name}", f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S}"]
        run = self._run("build", options, f"dbt build of {node.kind} {node.name!r}", context)
        result = run.results.get(node.unique_id)
        if result is None:
            raise self._nothing_built(run, node)
        if not result.is_ok:
            raise self._failed(run, result, tests, context)
        run.raise_for_hooks()
        self._keep(run, tests, context)
        return Published(result.relation or node.relation or node.unique_id, metadata=_facts(node, run, result))

    def observe(self, source: DbtNode, tests: Sequence[DbtTest], context: AssetContext) -> Published:
        """Find out how old a source is, and run its tests."""
        version = None
        facts: dict[str, Any] = {"dbt": source.unique_id, "columns": source.columns}
        if source.has_freshness:
            options = ["--select", f"source:{'.'.join(source.fqn[:1])}.{source.name}"]
            run = self._run("source freshness", options, f"dbt source freshness of {source.name!r}", context)
            result = run.results.get(source.unique_id)
            if result is None or result.status == "runtime error":
                raise run.error(result)
            version = result.facts.get("max_loaded_at")
            facts |= {"max_loaded_at": version, "age_seconds": result.facts.get("age_seconds")}
            self._keep_one(context, source.unique_id, result)
        if tests:
            run = self.test(tests, context, f"dbt test of source {source.name!r}")
            self._keep(run, tests, context)
        return Published(source.relation or source.name, version, facts)

    def try_alone(self, test: DbtTest, context: AssetContext) -> dict[str, Any]:
        """Run a test that is a step of its own."""
        run = self.test([test], context, f"dbt test {test.name!r}")
        self._keep(run, [test], context)
        result = run.results[test.unique_id]
        return {"status": result.status, "failures": result.failures, "message": result.message}

    def test(self, tests: Sequence[DbtTest], context: AssetContext | CheckContext, what: str) -> DbtRun:
        """Run tests.

        Raises:
            DbtError: one of them was not run.
        """
        run = self._run("test", self._selecting([test.fqn for test in tests], None), what, context)
        if any(test.unique_id not in run.results for test in tests):
            raise run.error() if run.exit_code else self._nothing_built(run, tests[0])
        run.raise_for_hooks()
        return run

    def check(self, test: DbtTest, context: CheckContext) -> CheckResult:
        """Say what a test came to: in the run of the step, else now."""
        result = self._take(context, test.unique_id)
        if result is None:
            result = self.test([test], context, f"dbt test {test.name!r}").results[test.unique_id]
        if result.status == "error":
            raise DbtError(f"dbt test {test.name!r}", result.message, f"dbt test --select {test.name}", 1)
        facts: dict[str, Any] = {"status": result.status, "seconds": round(result.seconds, 3)}
        if result.failures is not None:
            facts["failures"] = result.failures
        severity: Any = _SEVERITIES.get(result.status)
        return CheckResult(result.is_ok, severity=severity, description=result.message, metadata=facts)

    def freshness(self, source: DbtNode, context: CheckContext) -> CheckResult:
        """Say whether a source is as fresh as the project demands."""
        result = self._take(context, source.unique_id)
        if result is None:
            options = ["--select", f"source:{'.'.join(source.fqn[:1])}.{source.name}"]
            run = self._run("source freshness", options, f"dbt source freshness of {source.name!r}", context)
            result = run.results.get(source.unique_id)
            if result is None or result.status == "runtime error":
                raise run.error(result)
        age = result.facts.get("age_seconds")
        text = "" if age is None else f"newest row: {result.facts.get('max_loaded_at')}, {age:,.0f} s ago"
        severity: Any = _SEVERITIES.get(result.status)
        return CheckResult(result.is_ok, severity=severity, description=text, metadata={"status": result.status})

    def _run(self, verb: str, options: Sequence[str], what: str, context: AssetContext | CheckContext) -> DbtRun:
        asset = context.asset
        variables, environment = dict(self._variables), dict[str, str]()
        if asset.partitions is not None and context.partition is not None:
            variables |= self._variables_of(asset.partitions, context.partition)
            for name, value in default_partition_vars(asset.partitions, context.partition).items():
                environment[f"FLOWSTONE_{name.upper()}"] = value
        if isinstance(context, AssetContext) and context.config is not None:
            variables |= context.config.vars
        return self.command.run(
            verb,
            options,
            what=f"{what} [{write_partition(asset.partitions, context.key)}]" if context.key else what,
            variables=variables,
            environment=environment,
            cancellation=context.cancellation,
            logger=context.logger,
            asset=asset.name,
        )

    def _variables_of(self, definition: PartitionsDefinition, partition: Partition) -> Mapping[str, Any]:
        found: Any = self._partition_vars(definition, partition)
        if not isinstance(found, Mapping):
            raise DefinitionError(
                f"dbt_assets(partition_vars=...): it returned {shown(found)} for {shown(partition)}; give a dict "
                "of variables of dbt, {} for none."
            )
        return found

    def _selecting(self, chosen: Sequence[tuple[str, ...]], node: DbtNode | None) -> list[str]:
        """Select exactly some nodes: a name by directories also means what lies below it, which is left out."""
        options = ["--indirect-selection", "empty", "--select", *(f"fqn:{'.'.join(fqn)}" for fqn in chosen)]
        fqn = () if node is None else node.fqn
        others = [one.fqn for one in self._manifest.nodes.values() if one is not node]
        below = [one for one in others if fqn and one[: len(fqn)] == fqn and one not in chosen]
        return options + (["--exclude", *(f"fqn:{'.'.join(one)}" for one in below)] if below else [])

    def _nothing_built(self, run: DbtRun, missing: DbtNode | DbtTest) -> DbtError:
        if run.exit_code:
            return run.error()
        return DbtProjectError(
            run.what,
            f"dbt ran and did not build {missing.unique_id}: the project has it no longer, or it is disabled. The "
            "manifest is older than the project: run `dbt parse`, and start the workers again.",
            run.command,
            run.exit_code,
        )

    def _failed(
        self, run: DbtRun, result: NodeResult, tests: Sequence[DbtTest], context: AssetContext
    ) -> DbtError:
        """Return the error of a node; one that was skipped failed by a unit test."""
        if result.code:
            context.logger.error("The SQL was:\n%s", result.code)
        found = [run.results.get(test.unique_id) for test in tests]
        earlier = next((one for one in found if one is not None and not one.is_ok), None)
        return run.error(earlier if result.status == "skipped" and earlier is not None else result)

    def _keep(self, run: DbtRun, tests: Iterable[DbtTest], context: AssetContext) -> None:
        for test in tests:
            if test.unique_id in run.results:
                self._keep_one(context, test.unique_id, run.results[test.unique_id])

    def _keep_one(self, context: AssetContext, unique_id: str, result: NodeResult) -> None:
        with self._lock:
            self._kept[context.run_id, context.step_id, context.attempt, unique_id] = result
            while len(self._kept) > _MAX_KEPT:  # of steps that were cancelled before their checks
                self._kept.popitem(last=False)

    def _take(self, context: CheckContext, unique_id: str) -> NodeResult | None:
        """Take a result once: whoever checks the version again means its state at that time."""
        with self._lock:
            return self._kept.pop((context.run_id, context.step_id, context.attempt, unique_id), None)


def _facts(node: DbtNode, run: DbtRun, result: NodeResult) -> dict[str, Any]:
    """Return what is recorded with a version: what the adapter counted, how long it took, what it consists of."""
    facts: dict[str, Any] = {"dbt": node.unique_id, "seconds": round(result.seconds, 3), "message": result.message}
    for ours, names in (
        ("rows", ("rows_affected", "rows_inserted")),
        ("bytes", ("bytes_processed", "bytes_billed")),
    ):
        value = next((result.facts[name] for name in names if result.facts.get(name) is not None), None)
        # adapters say -1 where they do not know
        if isinstance(value, int) and value >= 0:
            facts[ours] = value
    if node.columns:
        facts["columns"] = node.columns
    return facts
