"""Something that runs every night: when it will, what an instant means, and how it ended with it."""

from __future__ import annotations

from datetime import UTC, date, datetime

from flowstone import AssetContext, DailyPartitions, FlowStone, Schedule, asset

days = DailyPartitions("2024-03-01", timezone="Europe/Berlin")


@asset(partitions=days)
def visits(context: AssetContext) -> int:
    assert isinstance(context.partition, date)
    return 100 * context.partition.day


@asset(partitions=days)
def report(visits: int) -> str:
    return f"{visits} visits"


nightly = Schedule("+report", "30 2 * * *", name="nightly", timezone="Europe/Berlin")


def main() -> None:
    """Look ahead over a change of the clock, then run the schedule by hand."""
    saturday = datetime(2024, 3, 30, 12, tzinfo=UTC)
    for instant in nightly.next_ticks(saturday, 2):
        print(instant.isoformat(), "means", days.last(instant))  # the clock skips 2:30 on Sunday

    with FlowStone([visits, report], schedules=[nightly]) as flow:
        flow.schedules.pause("nightly")
        tick = flow.schedules.run_now("nightly")  # by hand, even while it is paused
        assert tick is not None
        print(tick.state.value, "by hand:", tick.by_hand)
        for step in flow.runs.steps(tick.run_ids[0]):
            print(step.asset, step.state.value)


if __name__ == "__main__":
    main()
