"""Two assets, no configuration: run with `python examples/quickstart.py`."""

from __future__ import annotations

from flowstone import FlowStone, asset


@asset
def numbers() -> list[int]:
    """Some numbers; in real life a table, a file, an answer of a service."""
    return [1, 2, 3]


@asset
def doubled(numbers: list[int]) -> list[int]:
    """A parameter named as an asset is a dependency."""
    return [2 * n for n in numbers]


flow = FlowStone([numbers, doubled])

if __name__ == "__main__":
    result = flow.materialize_all("doubled")
    print(result.value)
    for step in flow.runs.steps(result.run_id):
        print(f"{step.asset}: {step.state}")
    print("again:", flow.materialize("doubled").state)
