"""An asset that fails twice and then succeeds. Run with `python examples/retries.py`."""

from __future__ import annotations

from flowstone import AssetContext, FlowStone, RetryPolicy, asset

QUICK = RetryPolicy(max_attempts=3, backoff_seconds=0.02, factor=3, jitter=0.0, retry_on=(ConnectionError,))


@asset(retry=QUICK)
def exchange_rate(context: AssetContext) -> float:
    """Stands for a service that answers at the third try."""
    if context.attempt < 3:
        raise ConnectionError(f"no answer to attempt {context.attempt}")
    return 1.08


if __name__ == "__main__":
    flow = FlowStone.for_testing([exchange_rate])
    done = flow.materialize("exchange_rate", executor="sync", executor_opts={"retry": True})

    for one in flow.runs.attempts(done.step_id):
        if one.retry_at is None:
            print(f"attempt {one.attempt}: {one.state}")
            continue
        backoff = (one.retry_at - one.finished_at).total_seconds()
        print(f"attempt {one.attempt}: {one.state} ({one.error_type}), next one after {backoff:.2f} s")
    print("value:", done.value)
