"""An asset that decides which branch runs; a retry keeps its decision. Run with `python examples/routing.py`."""

from __future__ import annotations

from flowstone import FlowStone, Route, asset, dep

CHANGED_ROWS = 12
attempts: list[str] = []


@asset(routes=["delta_load", "full_load"])
def changes() -> Route:
    """Looks how much changed, once, and decides how to load it."""
    attempts.append("changes")
    branch = "delta_load" if CHANGED_ROWS < 1000 else "full_load"
    return Route(branch, value=CHANGED_ROWS, reason=f"{CHANGED_ROWS} rows changed")


@asset
def delta_load(changes: int) -> str:
    """Loads what changed; the first time the connection breaks."""
    attempts.append("delta_load")
    if attempts.count("delta_load") == 1:
        raise ConnectionError("the warehouse did not answer")
    return f"{changes} rows added"


@asset
def full_load(changes: int) -> str:
    """Loads everything."""
    attempts.append("full_load")
    return "everything loaded"


@asset(deps=[dep("delta_load", optional=True), dep("full_load", optional=True)])
def table(delta_load: str | None, full_load: str | None) -> str:
    """Takes what the chosen branch made."""
    return delta_load or full_load or ""


if __name__ == "__main__":
    flow = FlowStone.for_testing([changes, delta_load, full_load, table])

    first = flow.materialize_all("table", executor="sync")
    for step in flow.runs.steps(first.run_id):
        print(f"{step.asset}: {step.state}" + (f" ({step.reason})" if step.reason else ""))

    retried = flow.runs.retry(first.run_id, executor="sync")
    print("after the retry:", flow.load("table"))
    print("called:", ", ".join(attempts))
