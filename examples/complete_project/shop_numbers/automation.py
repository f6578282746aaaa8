"""When things run: a sensor takes files as they come, a schedule makes the letter of the day before."""

from __future__ import annotations

from collections.abc import Iterator

from flowstone import RunRequest, Schedule, SensorContext, sensor

NIGHTLY = Schedule("+letter", "0 6 * * *", name="nightly", timezone="Europe/Berlin")


@sensor(every=60, selection="orders+", requires=["files"])
def new_orders(context: SensorContext) -> Iterator[RunRequest]:
    """A run for each day whose file has come; the run key makes it once."""
    for day in context.resources.files.days():
        yield context.request(run_key=f"{day}", partition=day, selection="+orders")
