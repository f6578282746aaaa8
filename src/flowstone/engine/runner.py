"""The one step runner: through the hooks, load the inputs, call the function, check and store the value.

Every executor runs steps through this, so the same program means the same everywhere. The runner neither
claims nor commits: inline executors do that step by step, workers of the durable executor in groups.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from functools import lru_cache, partial
from types import CoroutineType
from typing import NoReturn

from flowstone import telemetry
from flowstone.core import forks
from flowstone.core.asset import Asset
from flowstone.core.context import AssetContext, CancellationToken
from flowstone.core.graph import AssetGraph
from flowstone.core.outcome import (
    STORED_REMOTELY,
    AttemptOutcome,
    Failed,
    Outcome,
    Scattered,
    Skipped,
    Snoozed,
    Stopped,
    Succeeded,
    Suspended,
    succeeded,
)
from flowstone.core.output import PLAIN, type_name
from flowstone.core.recordable import is_plain, make_recordable, output_metadata
from flowstone.core.retry import RetryPolicy
from flowstone.core.route import ROUTE_KEY, Route, decide
from flowstone.core.step import Attempt, AttemptResult, CheckRecord, make_result
from flowstone.engine.call import Invoker
from flowstone.engine.checks import AssetChecks, StepChecks
from flowstone.engine.failures import failure, outcome_of, without_further_attempt
from flowstone.engine.isolated.values import EncodedValue, IsolatedValues
from flowstone.engine.logs import LogCapture, fields_of, make_log
from flowstone.engine.middleware import AttemptCall, CallRequest, HookSet, chain, make_request
from flowstone.engine.remote.calls import RemoteCalls, StoredThere, merged
from flowstone.engine.resources import ResourcePool
from flowstone.engine.values import NO_INPUTS, ResolvedInputs, ValueStore
from flowstone.errors import GateRepeatedError, RouteError

log = logging.getLogger("flowstone")

_ANSWERS = (Outcome, Scattered, Snoozed, Route)
# read once: a method of a class is looked up each time
_context_of = AssetContext.of_attempt
_clock = time.monotonic_ns
_microseconds: Callable[[int], timedelta] = lru_cache(maxsize=4096)(partial(timedelta, 0, 0))
"""Makes a duration; most steps are so short that many take as many microseconds."""
_OUTCOMES = (Succeeded, Failed, Snoozed, Scattered, Suspended, Skipped, Stopped)


class AssetCall:
    """The call at the end of an asset's chain: load the inputs, call the function, check the value, store it.

    Args:
        values: IO managers.
        invoker: how functions are called.
        checks: the checks of the asset; None when it has none.
        remote: calls the functions of assets that declare a compute.
        hooked: whether hooks stand around it, which may look at inputs and the value.
    """

    def __init__(
        self,
        values: ValueStore,
        invoker: Invoker,
        checks: AssetChecks | None,
        remote: RemoteCalls | None = None,
        *,
        hooked: bool = False,
    ) -> None:
        self._load, self._scan, self._store = values.load, values.scan, values.store
        self._isolated = None if hooked else IsolatedValues(values)
        self._invoker = invoker
        self._checks = checks
        self._remote = remote

    def run(self, context: AssetContext, request: CallRequest) -> AttemptOutcome:
        """Run one attempt; what loading and the function raise is an outcome here, so that hooks see it as one."""
        asset, inputs = context.asset, request.inputs
        began = 0.0 if self._checks is None else time.monotonic()
        try:
            limit = asset.timeout_seconds or request.timeout_seconds
            here = limit is None and asset.compute is None and asset.isolation == "thread"
            apart = not here and (
                asset.compute is not None
                or (
                    self._isolated is not None
                    and self._invoker.isolates(asset, limit, stoppable=request.stoppable)
                )
            )
            if not apart and (inputs.plans or inputs.given):
                context.inputs = inputs.arguments(self._load, self._scan)
            if here and not asset.is_async:
                call = asset.function
                value = call(context, **context.inputs) if asset.takes_context else call(**context.inputs)
                if type(value) is CoroutineType:  # a decorator may hide that it is wrapped around `async def`
                    value = self._invoker.wait_for(context, value)
            elif asset.compute is not None:
                value = self._call_remotely(context, request, limit)
            elif apart:
                value = self._call_isolated(context, request, limit)
            else:
                value = self._invoker.call(context, timeout_seconds=limit, stoppable=request.stoppable)
            if context.metadata or type(context.metadata) is not dict:
                context.metadata = output_metadata(context.metadata, asset.name)
            if type(value) is EncodedValue:
                assert self._isolated is not None
                value = StoredThere(self._isolated.store(context, value))
            if type(value) is StoredThere:
                return succeeded(merged(value.stored, context), STORED_REMOTELY)
            if asset.routes or context.metadata or (type(value) not in PLAIN and isinstance(value, _ANSWERS)):
                if isinstance(value, Outcome):
                    return outcome_of(value, request.policy)
                if isinstance(value, Scattered | Snoozed):
                    return value  # what a phase of a scatter says of itself
                value = _routed(context, value)
        except BaseException as error:  # noqa: BLE001 - whatever user code raises is an outcome of its step
            return outcome_of(error, request.policy)
        if self._checks is not None:
            return self._checks.store(context, value, request.checks, began=began)
        return succeeded(self._store(context, value), value)

    def _call_isolated(self, context: AssetContext, request: CallRequest, limit: float | None) -> object:
        """Have the function called in a process of its own; what is looked at here comes back as it is."""
        assert self._isolated is not None
        keep = self._checks is None and not context.asset.routes
        return self._invoker.call_isolated(
            context, request.inputs, self._isolated, timeout_seconds=limit, keep=keep
        )

    def _call_remotely(self, context: AssetContext, request: CallRequest, limit: float | None) -> object:
        """Have the function called elsewhere; what is looked at here comes back as it is."""
        assert self._remote is not None
        keep = self._checks is None and not context.asset.routes
        return self._remote.call(
            context, request.inputs, timeout_seconds=limit, stoppable=request.stoppable, keep=keep
        )


class StepRunner:
    """Performs claimed attempts.

    Args:
        graph: the assets.
        values: IO managers.
        resources: what assets may require.
        invoker: how functions are called.
        hooks: the app's own hooks around every step.
        checks: the checks of the app.
        logs: keeps what steps log; None when that is switched off.
        remote: calls the functions of assets that declare a compute.
    """

    def __init__(
        self,
        graph: AssetGraph,
        *,
        values: ValueStore,
        resources: ResourcePool,
        invoker: Invoker,
        hooks: HookSet | None = None,
        checks: StepChecks | None = None,
        logs: LogCapture | None = None,
        remote: RemoteCalls | None = None,
    ) -> None:
        self._assets = dict(graph.assets)
        self._plain_call: AttemptCall = AssetCall(values, invoker, None, remote).run
        self._remote = remote
        self._logs = logs
        self._values = values
        self._resources = resources
        self._invoker = invoker
        self._hooks = hooks or HookSet()
        self._checks = checks
        # with neither hooks nor checks anywhere, the chain of each asset is the same
        is_bare = not self._hooks.always and (checks is None or not any(True for _ in checks.declared))
        self._bare_call = self._plain_call if is_bare else None
        # for each set of named hooks that a run puts around its steps, and for each asset
        self._chains: defaultdict[tuple[str, ...], dict[str, AttemptCall]] = defaultdict(dict)

    def perform(
        self,
        attempt: Attempt,
        inputs: ResolvedInputs,
        cancellation: CancellationToken,
        policy: RetryPolicy | None = None,
        timeout_seconds: float | None = None,
        stoppable: bool = False,
    ) -> AttemptResult:
        """Run one attempt, whatever happens becomes its outcome, and return what to commit.

        An outcome may hold an exception, whose traceback holds this frame: no local variable may hold the outcome
        in the end, or both would keep the inputs in memory until the cyclic collector runs.

        Args:
            attempt: the attempt.
            inputs: the versions it reads.
            cancellation: set when it is to stop.
            policy: which exceptions are worth another attempt, and when; None retries nothing.
            timeout_seconds: limit of the function's running time when the asset declares none.
            stoppable: see `Invoker.call`.
        """
        started, process = _clock(), forks.copies
        asset = inputs.phase or self._assets[attempt.asset]
        records: list[CheckRecord] = []
        try:
            if inputs.skip is not None:
                outcome: AttemptOutcome = Skipped(inputs.skip)
            elif (inputs.missing or inputs.error) and (problem := inputs.problem(attempt)) is not None:
                outcome = failure(problem, policy)
            else:
                log_of = None if self._logs is None else make_log(self._logs, attempt)
                context = _context_of(asset, attempt, cancellation, log_of)
                named = context.run.details.hooks
                if named or asset.takes_context or asset.requires or asset.config is not None:
                    self._equip(context)
                call = None if named else self._bare_call
                if call is None:
                    call = self._chains[named].get(asset.name) or self._chain(context)
                request = make_request(inputs, timeout_seconds, stoppable, policy, records)
                here = telemetry.running_step.set(log_of or telemetry.RunningStep(fields_of(attempt)))
                try:
                    if telemetry.listeners:
                        outcome = _measured(call, context, request, attempt)
                    else:
                        outcome = call(context, request)
                finally:
                    telemetry.running_step.reset(here)
                    if log_of is not None:
                        log_of.over = True
                        if log_of.used:
                            log_of.end()
                if type(outcome) is not Succeeded:
                    outcome = _answer(attempt, outcome)
        except BaseException as error:  # noqa: BLE001 - whatever a hook raises is an outcome of its step
            outcome = outcome_of(error, policy)
        try:
            if forks.copies != process:
                _end_copy(asset)
            # the claim's clock goes on: in a fleet it is the database's, whatever this machine's clock says
            finished_at = attempt.started_at + _microseconds((_clock() - started) // 1000)
            delay = None
            if policy is not None and isinstance(outcome, Failed):
                outcome, delay = _retry_delay(attempt, outcome, policy)
            read = () if inputs is NO_INPUTS else inputs.versions()
            found, version = tuple(records) if records else (), asset.code_version
            ended = make_result(attempt, outcome, read, finished_at, delay, found, True, version)
            # the rest of it was made here
            ended.is_recordable = delay is None and not found and is_plain(outcome, version)
            return ended if ended.is_recordable else make_recordable(ended)
        finally:
            del outcome

    def _chain(self, context: AssetContext) -> AttemptCall:
        """Return the call of an asset with the hooks around it; those that the run names follow the app's."""
        asset, named = context.asset.name, context.run.details.hooks
        checks = None if self._checks is None else self._checks.of(asset)
        hooks = [*self._hooks.always, *self._hooks.named(named)]
        call = self._plain_call
        if checks is not None or hooks:
            call = AssetCall(self._values, self._invoker, checks, self._remote, hooked=bool(hooks)).run
        call = chain(hooks, call)
        self._chains[named][asset] = call
        return call

    def _equip(self, context: AssetContext) -> None:
        """Give a context what its asset and its run ask for besides inputs."""
        asset, details = context.asset, context.run.details
        if asset.requires or asset.takes_context:
            found = self._resources.for_asset(asset, details.resources)
            context.resources = found  # type: ignore[assignment]  # functions see a `Resources`
        if asset.config is not None:
            context.config = asset.config_in(details)
        if details.hooks:
            context.hooks_config = self._hooks.configs(details)


def _measured(call: AttemptCall, context: AssetContext, request: CallRequest, attempt: Attempt) -> AttemptOutcome:
    """Emit `step.start`, and `step.stop` or `step.exception`, around an attempt, within its span."""
    about = fields_of(attempt)
    telemetry.emit("step.start", {}, about)
    started = time.perf_counter()
    with nullcontext() if telemetry.tracer is None else telemetry.tracer.attempt(attempt):
        outcome = call(context, request)
    measured = {"duration_seconds": time.perf_counter() - started}
    if isinstance(outcome, Failed):
        failed = about | {"error": outcome.error, "error_type": outcome.error_type}
        telemetry.emit("step.exception", measured, failed)
    else:
        telemetry.emit("step.stop", measured, about | {"outcome": type(outcome).__name__.lower()})
    return outcome


def _routed(context: AssetContext, value: object) -> object:
    """Record a decision beside the value, and return that; nobody else may write under its key."""
    asset = context.asset
    context.metadata.pop(ROUTE_KEY, None)
    if isinstance(value, Route):
        decision = decide(value, asset.name, asset.routes, asset.where)
        context.metadata[ROUTE_KEY] = decision.to_json()
        return value.value
    if asset.routes:
        raise RouteError(asset.name, (), asset.routes, where=asset.where, returned=type_name(value))
    return value


def _end_copy(asset: Asset) -> NoReturn:
    """End a forked copy of this process that came out of user code: only the first process may commit."""
    log.critical(
        "Asset %r (%s) forked this process, and the copy returned. The copy ends here: end it with os._exit().",
        asset.name,
        asset.where,
    )
    os._exit(1)


def _answer(attempt: Attempt, outcome: AttemptOutcome) -> AttemptOutcome:
    """Return what came through the hooks, or the failure that it is.

    Asking again at a gate that is open is one: the function would stop there for ever.

    Raises:
        TypeError: it is no outcome.
    """
    if not isinstance(outcome, _OUTCOMES):
        raise TypeError(
            f"A hook answered with {outcome!r} instead of the outcome of its step. "
            "End the hook's call() with: return step(context)"
        )
    if isinstance(outcome, Suspended):
        for earlier in attempt.approvals:
            if earlier.gate == outcome.gate:
                return failure(GateRepeatedError(attempt.asset, outcome.gate, earlier.verdict()), None)
    return outcome


def _retry_delay(attempt: Attempt, outcome: Failed, policy: RetryPolicy) -> tuple[Failed, float | None]:
    if not outcome.retryable or attempt.attempt >= attempt.max_attempts:
        return outcome, None
    try:
        chance = random.random()  # noqa: S311 - jitter, not a secret
        return outcome, policy.delay_seconds(attempt.attempt, outcome.exception, chance=chance)
    except BaseException as error:  # noqa: BLE001 - user code, see RetryPolicy(backoff=...)
        return without_further_attempt(outcome, error), None
