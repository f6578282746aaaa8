"""Errors of work: of steps and of waiting for them, of placing it, of scatters, approvals and asset checks."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from flowstone.errors.declarations import DefinitionError
from flowstone.errors.root import FlowStoneError, command, did_you_mean, join_names, selected


class DependencyNotReadyError(FlowStoneError, RuntimeError):
    """Inputs of an asset have no committed materialization yet.

    Args:
        asset: the asset that cannot run.
        partition: its encoded partition.
        missing: the inputs, as pairs of asset and encoded partition.
        allow_incomplete: whether it is not over, so that only asking for that builds it.
        label: writes an encoded partition of an asset as people type it: that of the asset graph.
    """

    def __init__(
        self,
        asset: str,
        partition: str,
        missing: Sequence[tuple[str, str]],
        *,
        allow_incomplete: bool = False,
        label: Callable[[str, str], str] = lambda asset, key: key,
    ) -> None:
        self.asset = asset
        self.partition = partition
        self.missing = tuple(missing)
        text = label(asset, partition) if partition else None
        target = f"{asset!r}" + (f" [{text}]" if text is not None else "")
        listed = join_names(f"{name} [{label(name, key)}]" if key else name for name, key in missing)
        remedy = command(
            "materialize", selected(asset, upstream=True), partition=text, allow_incomplete=allow_incomplete
        )
        super().__init__(
            f"{target} cannot run yet: no committed materialization of {listed}. Build what is missing with "
            f"flow.materialize_all({asset!r}, ...) or `{remedy}`."
        )


class NotMaterializedError(DependencyNotReadyError):
    """Nothing is committed for an asset's partition, so there is no value to load.

    Args:
        asset: the asset.
        partition: its encoded partition.
        last: what came of the newest step for it.
        allow_incomplete: whether it is not over, so that only asking for that builds it.
        label: writes an encoded partition of an asset as people type it: that of the asset graph.
    """

    def __init__(
        self,
        asset: str,
        partition: str,
        *,
        last: str = "",
        allow_incomplete: bool = False,
        label: Callable[[str, str], str] = lambda asset, key: key,
    ) -> None:
        super().__init__(asset, partition, [(asset, partition)], allow_incomplete=allow_incomplete, label=label)
        text = label(asset, partition) if partition else None
        target = f"{asset!r}" + (f" [{text}]" if text is not None else "")
        remedy = command(
            "materialize", selected(asset, upstream=True), partition=text, allow_incomplete=allow_incomplete
        )
        happened = f" ({last})" if last else ""
        self.args = (
            f"Nothing is committed for {target}{happened}, so there is no value to load. Make it with "
            f"flow.materialize_all({asset!r}, ...) or `{remedy}`.",
        )


_OWN_ERRORS = re.compile(r"^flowstone\.errors\.[a-z]+\.")
"""How version 0.1 recorded our errors: with the module in which they were written."""


class StepFailedError(FlowStoneError, RuntimeError):
    """A step ended without a materialization and its original exception is not in this process.

    Raised by executors whose work runs elsewhere.

    Attributes:
        asset: asset name.
        partition: encoded partition.
        state: state of the step, such as `failed` or `upstream_failed`.
        error: recorded text with the traceback, or why the step never started.
        error_type: qualified name of the class of what was raised, such as `shop.api.ApiError`, if any.
        attempts: how many attempts were made.
        data: what `Fatal(..., data=...)` said.
    """

    def __init__(
        self,
        asset: str,
        partition: str,
        state: str,
        error: str | None,
        *,
        error_type: str | None = None,
        attempts: int = 0,
        data: Mapping[str, Any] | None = None,
        label: str | None = None,
    ) -> None:
        self.asset = asset
        self.partition = partition
        self.state = state
        self.error = error
        self.error_type = error_type
        self.attempts = attempts
        self.data = data
        target = f"{asset!r}" + (f" [{partition if label is None else label}]" if partition else "")
        super().__init__(f"{target} ended as {state}." + (f"\n{error}" if error else ""))

    def caused_by(self, kind: type[BaseException]) -> bool:
        """Whether the step raised this class or a subclass of it that is known here: the twin of `except kind`.

        Example:
            >>> error = StepFailedError("a", "", "failed", "...", error_type="builtins.FileNotFoundError")
            >>> error.caused_by(OSError)
            True
        """
        recorded = _OWN_ERRORS.sub("flowstone.errors.", self.error_type or "")
        waiting, seen = [kind], {kind}
        while waiting:
            one = waiting.pop()
            if f"{one.__module__}.{one.__qualname__}" == recorded:
                return True
            below = [found for found in type.__subclasses__(one) if found not in seen]
            seen.update(below)
            waiting += below
        return False


class RetryPolicyError(FlowStoneError, ValueError):
    """The function given as `RetryPolicy(backoff=...)` did not say how long to wait."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"RetryPolicy(backoff=...) {what}, so there is no further attempt. Return a timedelta or seconds, "
            "from 0 to a year."
        )


class MaterializationTimeoutError(FlowStoneError, TimeoutError):
    """An asset ran longer than its timeout."""

    def __init__(self, asset: str, seconds: float) -> None:
        self.asset = asset
        self.seconds = seconds
        super().__init__(
            f"Asset {asset!r} did not finish within its timeout of {seconds:g} s. "
            "Raise @asset(timeout=...) or make the work smaller."
        )


class WaitTimeoutError(FlowStoneError, TimeoutError):
    """Waiting ended; the work itself goes on."""

    def __init__(self, what: str, seconds: float, handle: str) -> None:
        self.handle = handle
        super().__init__(
            f"{what} was not over within {seconds:g} s; it goes on running. Ask again with "
            f"`{command('status', handle)}`, stop it with `{command('cancel', handle)}`."
        )


class StaleAttemptError(FlowStoneError, RuntimeError):
    """An attempt tried to publish after it had been replaced by another one (fencing)."""

    def __init__(self, asset: str, attempt: int) -> None:
        self.asset = asset
        self.attempt = attempt
        super().__init__(f"Attempt {attempt} of {asset!r} was superseded; its result was not published.")


class StepCancelledError(FlowStoneError, RuntimeError):
    """The work was cancelled before it was over."""

    def __init__(self, asset: str, reason: str | None = None) -> None:
        self.asset = asset
        self.reason = reason
        super().__init__(f"{asset!r} was cancelled{f': {reason}' if reason else ''}.")


class WorkerCrashedError(FlowStoneError, RuntimeError):
    """The process in which an asset ran died before the asset was done.

    Args:
        asset: name of the asset.
        exit_code: as `subprocess` reports it: negative for the number of a signal.
        stderr: the last that the process wrote to standard error.
    """

    def __init__(self, asset: str, exit_code: int, stderr: str = "") -> None:
        self.asset = asset
        self.exit_code = exit_code
        self.stderr = stderr
        self.signal_name = _signal_name(-exit_code) if exit_code < 0 else None
        how = f"killed by {self.signal_name}" if self.signal_name else f"exit code {exit_code}"
        meaning = _SIGNAL_MEANING.get(self.signal_name or "", "")
        if not self.signal_name:
            meaning = "code called os._exit, or a library ended the process"
        usually = f", which usually means: {meaning}" if meaning else ""
        tail = f"\nThe last lines of its stderr:\n{stderr.rstrip()}" if stderr.strip() else ""
        super().__init__(f"The process of asset {asset!r} died ({how}){usually}.{tail}")


_SIGNAL_MEANING = {
    "SIGKILL": "out of memory (the kernel ended it), or a person sent kill -9",
    "SIGSEGV": "a bug in C code of a library (stack overflow by deep recursion included)",
    "SIGABRT": "a C library gave up, for example for want of memory",
    "SIGBUS": "a memory-mapped file became shorter, or the disk is full",
    "SIGILL": "a library was built for another processor",
    "SIGFPE": "a division by zero in C code of a library",
    "SIGTERM": "a person or a supervisor stopped it",
    "SIGXCPU": "its limit of processor time was reached",
}


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class IsolatedFailureError(FlowStoneError, RuntimeError):
    """An asset raised, in a process of its own, an exception that could not be brought from there.

    Args:
        asset: name of the asset.
        type_name: qualified class of the exception.
        text: its message.
    """

    def __init__(self, asset: str, type_name: str, text: str) -> None:
        self.asset = asset
        self.type_name = type_name
        self.text = text
        super().__init__(f"{type_name}: {text} (raised by {asset!r} in its own process; it cannot be pickled)")


class ComputeLostError(FlowStoneError, RuntimeError):
    """The place where an asset was computed is gone, or gave no answer that can be used.

    Whether the function ran to its end there is not known, so that the attempt failed; there is another one as
    long as the step has attempts left, whatever its retry policy says about exceptions.

    Args:
        asset: name of the asset.
        compute: the place, for people.
        why: what is known.
    """

    def __init__(self, asset: str, compute: str, why: str) -> None:
        self.asset = asset
        self.compute = compute
        self.why = why
        super().__init__(f"Asset {asset!r} was handed to {compute}, and no answer came back: {why}")


class RemoteCodeError(FlowStoneError, RuntimeError):
    """Where an asset was to be computed lies other code of it than here; nothing was run.

    Args:
        asset: name of the asset.
        there: the host.
        difference: what differs.
    """

    def __init__(self, asset: str, there: str, difference: str) -> None:
        self.asset = asset
        self.there = there
        self.difference = difference
        super().__init__(
            f"Asset {asset!r} was not run on {there}: {difference}. Bring the same code there and restart its "
            "processes (they keep what they imported once), or let the code travel along: code='cloudpickle'."
        )


class StepChangedError(FlowStoneError, RuntimeError):
    """A step was placed by code that declares its asset otherwise than the code that is at work now.

    Args:
        asset: name of the asset.
        partition: its encoded partition.
        now: what is declared now.
    """

    def __init__(self, asset: str, partition: str, now: str) -> None:
        self.asset = asset
        self.partition = partition
        self.now = now
        where = f"{asset!r} [{partition}]" if partition else repr(asset)
        super().__init__(
            f"The step of {where} was placed by code that declares this asset otherwise, and no living worker "
            f"runs that code: {now}. Nothing was run. Place it again with the code of today."
        )


class ConfigurationError(FlowStoneError, ValueError):
    """A setting is missing, unknown or contradictory."""


class AppLoadError(ConfigurationError):
    """The app that a command names cannot be imported or built."""

    def __init__(self, target: str, why: str, *, where: str | None = None) -> None:
        self.target = target
        self.where = where
        place = f" ({where})" if where else ""
        super().__init__(f"The app {target!r} cannot be loaded: {why}{place}.")


class CapabilityError(FlowStoneError, NotImplementedError):
    """An executor was asked for something that it does not declare."""

    def __init__(self, executor: str, capability: str, declared: Iterable[str]) -> None:
        self.executor = executor
        self.capability = capability
        super().__init__(
            f"The executor {executor!r} does not offer {capability!r}; it declares: "
            f"{join_names(sorted(declared)) or 'nothing beyond execute and schedule'}."
        )


class ExecutorUnavailableError(FlowStoneError, RuntimeError):
    """The executor that was asked for by name cannot work here."""

    def __init__(self, executor: str, why: str, remedy: str) -> None:
        self.executor = executor
        super().__init__(f"The executor {executor!r} is not available: {why}. {remedy}")


class OptionsError(FlowStoneError, TypeError):
    """Per-call options are unknown, too large or cannot be serialized."""


class LaunchError(OptionsError):
    """A request as people wrote it cannot work; `problems` says what is wrong with which field.

    Args:
        problems: what is wrong, by the name of the field; of the whole under the empty name.

    Example:
        >>> str(LaunchError({"partitions": "Which partitions?"}))
        'partitions: Which partitions?'
    """

    def __init__(self, problems: Mapping[str, str]) -> None:
        self.problems = dict(problems)
        super().__init__("; ".join(f"{name}: {text}" if name else text for name, text in problems.items()))


class LaunchChangedError(FlowStoneError, RuntimeError):
    """What was to be placed is not what was agreed to: others committed or began some of it; nothing was placed.

    Args:
        plan: the plan as it is now.
    """

    def __init__(self, plan: Any) -> None:
        self.plan = plan
        super().__init__(
            f"The plan changed: now {plan.runs:,} steps would run. Nothing was placed; see the plan as it is now, "
            "and send its digest."
        )


class RunConflictError(FlowStoneError, RuntimeError):
    """What was asked for with a config, or parts, of its own is under way with others, and cannot be joined."""

    def __init__(self, asset: str, partition: str, run_id: str) -> None:
        self.asset = asset
        self.partition = partition
        self.run_id = run_id
        target = f"{asset!r} [{partition}]" if partition else repr(asset)
        super().__init__(
            f"{target} is computed by run {run_id!r} with another config, other resources or another IO "
            f"manager than this request names. Wait for it (flow.runs.wait({run_id!r})) or cancel it "
            f"(`{command('cancel', run_id)}`), and ask again; a request that names none of them joins it."
        )


class CountMovedError(FlowStoneError, RuntimeError):
    """What a person agreed to do to some number of things would be done to another number by now."""

    def __init__(self, expected: int, found: int, what: str) -> None:
        self.expected = expected
        self.found = found
        self.what = what
        super().__init__(
            f"{found:,} match by now, not {expected:,}: {what}. Nothing was done. Read the preview again, and "
            f"confirm with expected={found}."
        )


class MissingExtraError(FlowStoneError, ImportError):
    """An optional package is needed that is not installed.

    Args:
        package: its name.
        extra: the extra that brings it; None when none does.
        purpose: what needs it.
    """

    def __init__(self, package: str, extra: str | None, purpose: str) -> None:
        self.package = package
        self.extra = extra
        what = package if extra is None else f"'flowstone[{extra}]'"
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed. Install it with: pip install {what}"
        )


class ResourceError(FlowStoneError, RuntimeError):
    """A resource is unknown or could not be opened."""


class NotSentError(FlowStoneError):
    """A message was not taken by the service to which a notification went; it is sent again later."""


class ItemError(FlowStoneError, ValueError):
    """A discovered item cannot be used; nothing is gained by discovering it again.

    Args:
        asset: the asset that discovered it.
        position: its position in the order of discovery, from 0.
        problem: what is wrong and what to do.
    """

    def __init__(self, asset: str, position: int, problem: str) -> None:
        self.asset = asset
        self.position = position
        super().__init__(f"Asset {asset!r} discovered an item that cannot be used, number {position}: {problem}")


class ScatterFailedError(FlowStoneError, RuntimeError):
    """More items of an asset have no result than its threshold allows.

    Args:
        asset: the asset.
        run_id: the run of its items.
        total: number of items.
        failed: number of items that failed.
        cancelled: number of items that were cancelled, because of the failures or by a person.
        allowed: how many may be without a result.
        first: key and error of the first failures.
    """

    def __init__(
        self,
        asset: str,
        run_id: str,
        *,
        total: int,
        failed: int,
        cancelled: int,
        allowed: int,
        first: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.asset = asset
        self.run_id = run_id
        self.total, self.failed, self.cancelled, self.allowed = total, failed, cancelled, allowed
        self.first = tuple(first)
        ended = f"{failed:,} of {total:,} items failed" + (f", {cancelled:,} cancelled" if cancelled else "")
        shown = "; ".join(f"{key}: {text}" for key, text in first)
        super().__init__(
            f"Asset {asset!r} was not gathered: {ended}, and {allowed:,} may fail (max_failures). "
            f"{'First failures: ' + shown + '. ' if shown else ''}What succeeded is kept: repair the cause and "
            f"retry the run, which runs only the others again. `{command('status', run_id)}` lists them."
        )


class ApprovalNotFoundError(FlowStoneError, LookupError):
    """No request for approval carries this id."""

    def __init__(self, identifier: int | str) -> None:
        self.identifier = str(identifier)
        super().__init__(
            f"There is no request for approval with id {self.identifier!r}. "
            "`flowstone approvals --all` lists them."
        )


class ApprovalDecidedError(FlowStoneError, RuntimeError):
    """A decision came too late: the first one counts.

    Args:
        approval_id: the request.
        state: what it is: approved, rejected, expired, cancelled.
        verdict: the same in words, with who, when and why.
        decided_by: who decided; None when nobody did.
        decided_at: when.
    """

    def __init__(
        self, approval_id: int, *, state: str, verdict: str, decided_by: str | None, decided_at: datetime | None
    ) -> None:
        self.approval_id = approval_id
        self.state = state
        self.decided_by = decided_by
        self.decided_at = decided_at
        super().__init__(
            f"Approval {approval_id} is over, so this decision changes nothing: it was {verdict}. "
            f"See `{command('approvals', 'show', str(approval_id))}`; to ask again, run the step again."
        )


class GateRepeatedError(FlowStoneError, RuntimeError):
    """An asset asked again at a gate through which it had been let already.

    Args:
        asset: asset name.
        gate: the gate.
        verdict: the decision that it ignored.
    """

    def __init__(self, asset: str, gate: str, verdict: str) -> None:
        self.asset = asset
        self.gate = gate
        super().__init__(
            f"Asset {asset!r} asked again at the gate {gate!r}, which was {verdict}. Ask only while "
            f"context.approvals.get({gate!r}) is None; a second question needs AwaitApproval(..., gate=...) with "
            "another name."
        )


class UnknownCheckedAssetError(DefinitionError):
    """A check is about an asset that the app does not have."""

    def __init__(self, check: str, asset: str, known: Iterable[str], *, where: str) -> None:
        self.check = check
        self.asset = asset
        super().__init__(
            f"Check {check!r} is about {asset!r}, which is not an asset of this app.{did_you_mean(asset, known)} "
            "Add the asset to FlowStone([...]), or correct the name in @check(...).",
            where=where,
        )


class DuplicateCheckError(DefinitionError):
    """Two checks of one asset carry one name."""

    def __init__(self, asset: str, check: str, first: str, second: str) -> None:
        self.asset = asset
        self.check = check
        super().__init__(
            f"Two checks of {asset!r} are named {check!r}: one at {first}, one at {second}. "
            "Rename one of them, or pass @check(..., name=...)."
        )


class FailedCheck(NamedTuple):
    """One check that kept a value from being published, as `CheckFailedError` names it."""

    name: str
    found: str

    def __str__(self) -> str:
        return f"{self.name!r}" + (f" ({self.found})" if self.found else "")


class CheckFailedError(FlowStoneError, ValueError):
    """A blocking check found the value of an asset wanting; nothing of it was published.

    Args:
        asset: name of the asset.
        partition: the partition as people write it; empty without partitions.
        failed: the checks, with what each one found.
    """

    def __init__(self, asset: str, partition: str, failed: Sequence[FailedCheck]) -> None:
        self.asset = asset
        self.partition = partition
        self.failed = tuple(failed)
        target = f"{asset!r}" + (f" [{partition}]" if partition else "")
        several = "the blocking check" if len(failed) == 1 else f"{len(failed)} blocking checks:"
        super().__init__(
            f"The value of {target} did not pass {several} {', '.join(map(str, failed))}. It was not "
            "published; what was committed before stays readable. Correct the data or the asset and materialize "
            "it again."
        )

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.asset, self.partition, self.failed)


class CheckTimeoutError(FlowStoneError, TimeoutError):
    """A check ran longer than its timeout."""

    def __init__(self, asset: str, check: str, seconds: float) -> None:
        self.asset = asset
        self.check = check
        self.seconds = seconds
        super().__init__(
            f"Check {check!r} of {asset!r} did not finish within its timeout of {seconds:g} s. "
            "Raise @check(..., timeout=...) or look at less."
        )

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.asset, self.check, self.seconds)
