"""An asset that finds out what there is to do, and does it item by item. Run with `python examples/scatter.py`."""

from __future__ import annotations

from collections.abc import Iterator

from flowstone import FlowStone, Gathered, RetryPolicy, asset, scatter

LETTERS = {"ann": 12, "bob": 7, "cem": -1, "dora": 3}
REPAIRED: list[str] = []


@asset
def customers() -> list[str]:
    """Stands for a table."""
    return list(LETTERS)


@asset(retry=RetryPolicy(max_attempts=2, backoff_seconds=0.01))
def letter(customer: str) -> str:
    """What is done with each of them; a step of its own, with retries of its own."""
    if LETTERS[customer] < 0 and customer not in REPAIRED:
        raise ValueError(f"{customer} has no address")
    return f"{customer}: {LETTERS[customer]} pages"


@scatter(each=letter, max_concurrency=50, max_failures=0)
def letters(customers: list[str]) -> Iterator[str]:
    """Discovers the items when it runs."""
    print("discovering")
    yield from customers


@letters.gather
def gathered(results: Gathered) -> list[str]:
    """Gets the results one by one, in the order of discovery."""
    return [result.value for result in results]


flow = FlowStone.for_testing([customers, letters])

if __name__ == "__main__":
    result = flow.materialize_all("letters", executor_opts={"retry": True})
    print(result.state, "-", next(iter(result.errors.values())).split("(max_failures)")[0])
    (items,) = flow.runs.latest(parent=result.run_id)
    print({state.value: number for state, number in sorted(items.counts.items())})

    REPAIRED.append("cem")
    again = flow.runs.retry(result.run_id)
    print(again.state, again.value)
    (items,) = flow.runs.latest(parent=again.run_id)
    print({state.value: number for state, number in sorted(items.counts.items())})
