"""The one step runner: load the inputs, call the function, store the value.

Every executor runs steps through this, so the same program means the same everywhere. The runner neither
claims nor commits: inline executors do that step by step, workers of the durable executor in groups.
"""

from __future__ import annotations

import logging
import os
import random
import time
from datetime import timedelta
from typing import NamedTuple, NoReturn

from flowstone.core.asset import Asset
from flowstone.core.check_record import CheckRecord
from flowstone.core.context import AssetContext, CancellationToken
from flowstone.core.fit import fit, output_facts
from flowstone.core.forks import copies
from flowstone.core.graph import AssetGraph
from flowstone.core.outcome import (
    AttemptOutcome,
    Failed,
    Outcome,
    Scattered,
    Skipped,
    Snoozed,
    Stopped,
    Succeeded,
    Suspended,
)
from flowstone.core.output import type_name
from flowstone.core.partition import decode_partition
from flowstone.core.retry import RetryPolicy
from flowstone.core.route import ROUTE_KEY, Route, decide
from flowstone.core.run_details import RunInfo
from flowstone.core.step import Claim, Completion
from flowstone.engine.checks import CheckHooks
from flowstone.engine.failures import failure, outcome_of, without_further_attempt
from flowstone.engine.hooks import HookSet, ValueStore, default_hooks, onion, returned
from flowstone.engine.inputs import ResolvedInputs
from flowstone.engine.invoke import Invoker
from flowstone.engine.resources import ResourcePool
from flowstone.errors import GateRepeatedError, RouteError
from flowstone.protocols import StepCall

log = logging.getLogger("flowstone")

_ANSWERS = (Outcome, Scattered, Snoozed, Route)
_OUTCOMES = (Succeeded, Failed, Snoozed, Scattered, Suspended, Skipped, Stopped)


class CallRequest(NamedTuple):
    """How the function of one attempt is called; travels with its context to the end of the hooks."""

    inputs: ResolvedInputs
    timeout_seconds: float | None
    stoppable: bool
    policy: RetryPolicy | None


class StepRunner:
    """Performs claimed attempts.

    Args:
        graph: the assets.
        values: IO managers.
        resources: what assets may require.
        invoker: how functions are called.
        hooks: the app's own hooks around every step.
        checks: the skins that checks add.
    """

    def __init__(
        self,
        graph: AssetGraph,
        *,
        values: ValueStore,
        resources: ResourcePool,
        invoker: Invoker,
        hooks: HookSet | None = None,
        checks: CheckHooks | None = None,
    ) -> None:
        self._graph = graph
        self._values = values
        self._resources = resources
        self._invoker = invoker
        self._hooks = hooks or HookSet()
        self._checks = checks
        # one for all assets without checks, one for each with checks; and one more for each set of named hooks
        self._onions: dict[tuple[str | None, tuple[str, ...]], StepCall] = {}
        self._with_checks = frozenset(checks.assets if checks is not None else ())

    def perform(
        self,
        claim: Claim,
        inputs: ResolvedInputs,
        cancellation: CancellationToken,
        *,
        policy: RetryPolicy | None = None,
        timeout_seconds: float | None = None,
        stoppable: bool = False,
    ) -> Completion:
        """Run one attempt, whatever happens becomes its outcome, and return what to commit.

        Args:
            claim: the attempt.
            inputs: the versions it reads.
            cancellation: set when somebody wants it to stop.
            policy: which exceptions are worth another attempt, and when; None retries nothing.
            timeout_seconds: limit of the function's running time when the asset declares none.
            stoppable: see `Invoker.call`.
        """
        started = time.monotonic()
        process = copies()
        records: list[CheckRecord] = []
        request = CallRequest(inputs, timeout_seconds, stoppable, policy)
        outcome = self._outcome(claim, request, cancellation, records)
        if copies() != process:
            _end_copy(self._graph[claim.asset])
        delay = None
        if policy is not None:
            outcome, delay = _retry_delay(claim, outcome, policy)
        # the claim's clock goes on: in a fleet it is the database's, whatever this machine's clock says
        finished_at = claim.started_at + timedelta(seconds=time.monotonic() - started)
        version = (inputs.leg or self._graph[claim.asset]).code_version
        ended = Completion(
            claim, outcome, inputs.versions(), finished_at, delay, tuple(records), ran=True, code_version=version
        )
        return fit(ended)

    def _outcome(
        self, claim: Claim, request: CallRequest, cancellation: CancellationToken, records: list[CheckRecord]
    ) -> AttemptOutcome:
        """Call through the hooks; whatever happens is returned.

        An outcome may hold an exception, whose traceback holds this frame: no local variable may hold the
        outcome, or both would keep the inputs in memory until the cyclic collector runs.
        """
        inputs, policy = request.inputs, request.policy
        try:
            if inputs.skip is not None:
                return Skipped(inputs.skip)
            problem = inputs.problem(claim)
            if problem is not None:
                return failure(problem, policy)
            asset = inputs.leg or self._graph[claim.asset]
            context = self._context(asset, claim, cancellation, records)
            context.request = request
            return _asked_once(claim, _checked(self._around(asset.name, context.run.details.hooks)(context)))
        except BaseException as error:  # noqa: BLE001 - whatever user code raises is an outcome of its step
            return outcome_of(error, policy)

    def _around(self, asset: str, named: tuple[str, ...]) -> StepCall:
        """Return the function of an asset with the hooks around it; those that the run names follow the app's."""
        key = (asset if asset in self._with_checks else None, named)
        found = self._onions.get(key)
        if found is None:
            checks = self._checks if key[0] is not None else None
            skins = default_hooks(
                self._values,
                [*self._hooks.always, *self._hooks.named(named)],
                before_storing=checks.before_storing(asset) if checks else (),
                after_storing=checks.after_storing(asset) if checks else (),
            )
            found = self._onions[key] = onion(skins, self._call)
        return found

    def _context(
        self, asset: Asset, claim: Claim, cancellation: CancellationToken, records: list[CheckRecord]
    ) -> AssetContext:
        run = claim.run or RunInfo(id=claim.run_id)
        return AssetContext(
            asset=asset,
            partition=decode_partition(claim.partition),
            key=claim.partition,
            run_id=claim.run_id,
            step_id=str(claim.step_id),
            attempt=claim.attempt,
            token=claim.token,
            started_at=claim.started_at,
            cancellation=cancellation,
            resources=self._resources.for_asset(asset, run.details.resources),
            run=run,
            config=None if asset.config is None else asset.config_in(run.details),
            hooks_config=self._hooks.configs(run.details) if run.details.hooks else None,
            check_records=records,
            approvals=claim.approvals,
        )

    def _call(self, context: AssetContext) -> AttemptOutcome:
        """Load and call, innermost; errors become outcomes here, so that hooks see them as outcomes too."""
        inputs, timeout_seconds, stoppable, policy = context.request
        try:
            if inputs.plans or inputs.given:
                context.inputs = inputs.arguments(self._values.load)
            limit = context.asset.timeout_seconds or timeout_seconds
            value = self._invoker.call(context, timeout_seconds=limit, stoppable=stoppable)
            if context.metadata or type(context.metadata) is not dict:
                context.metadata = output_facts(context.metadata, context.asset.name)
        except BaseException as error:  # noqa: BLE001 - see perform
            return outcome_of(error, policy)
        if context.asset.routes or context.metadata or isinstance(value, _ANSWERS):
            return self._answered(context, value, policy)
        return returned(value)

    def _answered(self, context: AssetContext, value: object, policy: RetryPolicy | None) -> AttemptOutcome:
        """Return what a function means that returned something else than a plain value."""
        if isinstance(value, Outcome):
            return outcome_of(value, policy)
        if isinstance(value, Scattered | Snoozed):
            return value  # what a leg of a scatter says of itself
        return self._routed(context, value, policy)

    def _routed(self, context: AssetContext, value: object, policy: RetryPolicy | None) -> AttemptOutcome:
        """Record a decision beside the value; nobody else may write under its key."""
        asset = context.asset
        context.metadata.pop(ROUTE_KEY, None)
        try:
            if isinstance(value, Route):
                decision = decide(value, asset.name, asset.routes, asset.where)
                context.metadata[ROUTE_KEY] = decision.to_json()
                return returned(value.value)
            if asset.routes:
                raise RouteError(asset.name, (), asset.routes, where=asset.where, returned=type_name(value))
        except Exception as error:  # noqa: BLE001 - see perform
            return outcome_of(error, policy)
        return returned(value)


def _end_copy(asset: Asset) -> NoReturn:
    """End a forked copy of this process that came out of user code: only the first process may commit."""
    log.critical(
        "Asset %r (%s) forked this process, and the copy returned. The copy ends here: end it with os._exit().",
        asset.name,
        asset.where,
    )
    os._exit(1)


def _checked(outcome: AttemptOutcome) -> AttemptOutcome:
    if type(outcome) not in _OUTCOMES and not isinstance(outcome, _OUTCOMES):
        raise TypeError(
            f"A hook answered with {outcome!r} instead of the outcome of its step. "
            "End the hook's call() with: return step(context)"
        )
    return outcome


def _asked_once(claim: Claim, outcome: AttemptOutcome) -> AttemptOutcome:
    """Refuse to ask again at a gate that is open: the function would stop there for ever."""
    if isinstance(outcome, Suspended):
        for earlier in claim.approvals:
            if earlier.gate == outcome.gate:
                return failure(GateRepeatedError(claim.asset, outcome.gate, earlier.verdict()), None)
    return outcome


def _retry_delay(
    claim: Claim, outcome: AttemptOutcome, policy: RetryPolicy
) -> tuple[AttemptOutcome, float | None]:
    if not isinstance(outcome, Failed) or not outcome.retryable:
        return outcome, None
    if claim.attempt >= claim.max_attempts:
        return outcome, None
    try:
        chance = random.random()  # noqa: S311 - jitter, not a secret
        return outcome, policy.delay_seconds(claim.attempt, outcome.exception, chance=chance)
    except BaseException as error:  # noqa: BLE001 - user code, see RetryPolicy(backoff=...)
        return without_further_attempt(outcome, error), None
