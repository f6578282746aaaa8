"""Files come into a directory; each is counted once, whatever happens in between."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import flowstone as fs
from flowstone import AssetContext, DynamicPartitions, FlowStone, SensorContext, asset, new_files, sensor

INBOX = TemporaryDirectory()
orders = DynamicPartitions("orders")
shops = DynamicPartitions("shops")


@asset(partitions=orders)
def lines(context: AssetContext) -> int:
    return len(Path(INBOX.name, str(context.partition)).read_text().splitlines())


@asset(partitions=shops)
def greeting(context: AssetContext) -> str:
    return f"Welcome, {context.partition}!"


inbox = new_files(
    INBOX.name, name="inbox", selection="lines", partition=lambda file: file.name, add_to=orders, settle=0
)


@sensor(every=10, selection="greeting")
def new_shops(context: SensorContext) -> fs.SensorResult:
    """Greet every shop that opened since the last time."""
    names = ["ada", "bo", "cy"][int(context.cursor or 0) :][:2]
    requested = [context.request(partition=name, run_key=name) for name in names]
    cursor = str(int(context.cursor or 0) + len(names))
    return fs.SensorResult(requests=requested, add_partitions={shops: names}, cursor=cursor)


def main() -> None:
    """Evaluate by hand what workers evaluate by themselves."""
    with INBOX, FlowStone([lines, greeting], sensors=[inbox, new_shops]) as flow:
        Path(INBOX.name, "monday.csv").write_text("tea\nmilk\n")
        print("runs:", len(flow.sensors.evaluate("inbox").run_ids))
        print("lines:", flow.load("lines", partition="monday.csv"))
        print("again:", flow.sensors.evaluate("inbox").reason)
        print("next:", [one.partition for one in flow.sensors.preview("new_shops").requests])
        print("greeted:", sum(len(flow.sensors.evaluate("new_shops").run_ids) for _ in range(3)))
        flow.sensors.set_cursor("new_shops", None)  # a person starts it over: run keys hold
        print("replayed:", flow.sensors.evaluate("new_shops").reason)


if __name__ == "__main__":
    main()
