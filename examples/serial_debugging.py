"""A run step by step, printed as it happens. Run with `python examples/serial_debugging.py`."""

from __future__ import annotations

from flowstone import FlowStone, asset
from flowstone.executors.inline import StepEvent


@asset
def readings() -> list[float]:
    """Measured values; one of them is wrong."""
    return [20.5, 21.0, -273.9, 20.8]


@asset
def valid(readings: list[float]) -> list[float]:
    """Without what cannot be."""
    return [value for value in readings if value > -273.15]


@asset
def mean(valid: list[float]) -> float:
    """The average; a breakpoint() here stops in the terminal, as in any function."""
    return sum(valid) / len(valid)


def report(event: StepEvent) -> None:
    """Print what the executor reports before and after every step."""
    if event.phase == "before":
        print(f"{event.number}. {event.job.asset} ...")
    else:
        print(f"   {event.state}: {event.value or event.error}")


if __name__ == "__main__":
    flow = FlowStone.for_testing([readings, valid, mean])
    result = flow.materialize_all(
        "mean", executor="serial", executor_opts={"on_step": report, "verbose": False, "pause_between": 0.05}
    )
    print(f"{result.succeeded} steps, mean {result.value:.2f}")
