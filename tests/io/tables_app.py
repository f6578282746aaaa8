"""Assets whose values are tables, in a process that dies: `python -m tests.io.tables_app URL OTHER FAULT`."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import pyarrow

from flowstone import FlowStone, Settings, asset, check
from flowstone.core.output import Publication
from flowstone.io import TableIO


class DyingIO(TableIO):
    """Is killed when it is to publish."""

    def publish(self, publication: Publication, connection: object | None) -> bool:
        os.kill(os.getpid(), signal.SIGKILL)
        return super().publish(publication, connection)


@asset(io="tables")
def orders(context: Any) -> Any:
    return pyarrow.table({"n": [int(os.environ.get("NUMBER", "1"))]})


@check("orders", blocking=False)
def killed_after_storing(orders: Any) -> bool:
    if os.environ.get("FAULT") == "before the commit":
        os.kill(os.getpid(), signal.SIGKILL)
    return True


def make(url: str, other: str | None, *, dying: bool = False) -> FlowStone:
    """Return the app; with `other` its tables lie there."""
    kind = DyingIO if dying else TableIO
    settings = Settings(database_url=url, executor="sync", lease_seconds=0.5, beat_seconds=0.1)
    return FlowStone([orders], checks=[killed_after_storing], io={"tables": kind(other)}, settings=settings)


if __name__ == "__main__":
    os.environ["FAULT"] = sys.argv[3]
    with make(sys.argv[1], sys.argv[2] or None, dying=sys.argv[3] == "after the commit") as flow:
        flow.materialize("orders", force=True)
