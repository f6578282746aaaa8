"""A step with its attempts, as text and as JSON: what `status` and `runs show` print."""

from __future__ import annotations

from dataclasses import asdict

from flowstone.app import FlowStone
from flowstone.cli.output import Column, Output, moment, one_line, took
from flowstone.cli.partitions import label
from flowstone.core.clean import error_line
from flowstone.core.route import RouteDecision, decision_of
from flowstone.core.state import State
from flowstone.core.step import AttemptRecord, RunRecord, StepRecord
from flowstone.errors import RunNotFoundError


def find(flow: FlowStone, identifier: str) -> tuple[StepRecord | None, RunRecord | None]:
    """Return the step or the run with this id.

    Raises:
        RunNotFoundError: there is neither.
    """
    try:
        return flow.runs.step(identifier), None
    except RunNotFoundError:
        pass
    try:
        return None, flow.runs.get(identifier)
    except RunNotFoundError:
        raise RunNotFoundError("step or run", identifier) from None


def show_step(out: Output, flow: FlowStone, step: StepRecord) -> None:
    """Write a step with its attempts."""
    attempts = flow.runs.attempts(step.id)
    fresh = next(iter(flow.insights.freshness(step.asset)), None)
    if out.as_json:
        listed = [_attempt_json(one) for one in attempts]
        found = None if fresh is None else asdict(fresh)
        out.json({**step_json(flow, step), "freshness": found, "attempts": listed})
        return
    out.line(f"step {step.id} is {step.state.value}")
    scheduled = "next attempt" if step.state is State.RETRYING else "scheduled for"
    write_fields(
        out,
        {
            "asset": f"{step.asset} {label_of_step(flow, step)}".strip(),
            "run": step.run_id,
            "executor": step.executor,
            "queue": f"{step.queue}, priority {step.priority}",
            "attempt": f"{step.attempt} of {step.max_attempts}",
            scheduled: moment(step.scheduled_at),
            "started": moment(step.started_at),
            "finished": moment(step.finished_at),
            "worker": step.worker or "",
            "stored": f"{step.stored.io}: {step.stored.location}" if step.stored else "",
            "route": route_text(decision_of(step.stored)),
            "reason": flow.parts.waiting.reason_of(step),
            "invalidated": moment(step.invalidated_at),
            "late data": fresh.says if fresh is not None and fresh.late_since else "",
            "waits for": "; ".join(waits) if (waits := flow.runs.status(step.id).waiting_for) else "",
        },
    )
    if attempts:
        out.line()
        columns = [
            Column("ATTEMPT", right=True),
            Column("STATE"),
            Column("STARTED", rank=2),
            Column("TOOK", rank=3, right=True),
            Column("NEXT ATTEMPT", rank=1),
            Column("WORKER", rank=4),
            Column("ERROR"),
        ]
        out.table(columns, [_attempt_row(one) for one in attempts])
    if step.error:
        out.line()
        out.line(step.error.rstrip())


def route_text(decision: RouteDecision | None) -> str:
    """Return a decision on one line; empty for none.

    Example:
        >>> route_text(RouteDecision(("full",), ("delta",), "empty table"))
        'to full, not to delta (empty table)'
    """
    if decision is None:
        return ""
    chosen = f"to {', '.join(decision.chosen)}" if decision.chosen else "to nobody"
    others = f", not to {', '.join(decision.not_chosen)}" if decision.not_chosen else ""
    return chosen + others + (f" ({decision.reason})" if decision.reason else "")


def _attempt_row(one: AttemptRecord) -> list[str]:
    return [
        str(one.attempt),
        one.state.value,
        moment(one.started_at),
        took(one.started_at, one.finished_at),
        moment(one.retry_at),
        one.worker or "",
        error_line(one.error),
    ]


def write_fields(out: Output, fields: dict[str, str]) -> None:
    """Write names and values below each other, without those that are empty."""
    shown = {name: value for name, value in fields.items() if value}
    width = max(len(name) for name in shown)
    for name, value in shown.items():
        out.line(f"  {name.ljust(width)}  {one_line(value)}", hang=width + 4)


def label_of_step(flow: FlowStone, step: StepRecord) -> str:
    """Return the partition of a step for people."""
    return label(step.partition_key, flow.graph.assets.get(step.asset))


def step_json(flow: FlowStone, step: StepRecord) -> dict[str, object]:
    """Return a step with JSON types."""
    moments = {
        name: at.isoformat() if at else None
        for name, at in (
            ("created_at", step.created_at),
            ("scheduled_at", step.scheduled_at),
            ("started_at", step.started_at),
            ("finished_at", step.finished_at),
        )
    }
    return {
        "kind": "step",
        "id": str(step.id),
        "run_id": step.run_id,
        "asset": step.asset,
        "partition": label_of_step(flow, step) or None,
        "state": step.state.value,
        "attempt": step.attempt,
        "max_attempts": step.max_attempts,
        "priority": step.priority,
        "queue": step.queue,
        "executor": step.executor,
        **moments,
        "worker": step.worker,
        "waiting_on": step.waiting_on,
        "waiting_for": list(flow.runs.status(step.id).waiting_for) if not step.state.is_terminal else [],
        "invalidated_at": step.invalidated_at.isoformat() if step.invalidated_at else None,
        "reason": flow.parts.waiting.reason_of(step) or None,
        "error": step.error,
        "error_type": step.error_type,
        "route": decision.to_json() if (decision := decision_of(step.stored)) else None,
        "stored": dict(step.stored.to_json()) if step.stored else None,
    }


def _attempt_json(one: AttemptRecord) -> dict[str, object]:
    return {
        "attempt": one.attempt,
        "state": one.state.value,
        "started_at": one.started_at.isoformat(),
        "finished_at": one.finished_at.isoformat(),
        "worker": one.worker,
        "error": one.error,
        "error_type": one.error_type,
        "retry_at": one.retry_at.isoformat() if one.retry_at else None,
    }
