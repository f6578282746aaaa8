"""Three days, one of them exported twice: loaded, refused, mended, loaded again. `python -m elt_duckdb`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import duckdb

from elt_duckdb.pipeline import build
from flowstone import Message, Notify, Settings

EXPORTS = {
    "2024-01-01": "id,customer,cents\n1,Ann,1200\n2,Bob,3000\n",
    "2024-01-02": "id,customer,cents\n3,Ann,800\n3,Ann,800\n",
    "2024-01-03": "id,customer,cents\n4,Bob,0\n5,Cem,500\n",
}
MENDED = "id,customer,cents\n3,Ann,800\n"


def main(directory: Path) -> None:
    """Run it below a directory."""

    def on_call(message: Message) -> None:
        print("notified:", message.subject)

    watched = [Notify(to=on_call, on=("check_failed", "recovered"))]
    in_memory = Settings()  # whatever the environment says
    with build(directory, settle=0, notify=watched, settings=in_memory) as flow:
        for day, text in EXPORTS.items():
            (directory / "inbox" / f"orders-{day}.csv").write_text(text)
        flow.sensors.evaluate("exports")  # what workers do every few seconds
        (directory / "inbox" / "orders-2024-01-02.csv").write_text(MENDED)
        flow.sensors.evaluate("exports")
        flow.materialize("best_customers")
    with duckdb.connect(str(directory / "warehouse.duckdb"), read_only=True) as warehouse:
        print(warehouse.execute("SELECT customer, cents FROM best_customers").fetchall())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        main(Path(place))
