"""A stock Oban worker whose database is in the environment; with `install`, its tables."""

from __future__ import annotations

import json
import os
import sys

import uvloop
from oban import Oban
from oban.schema import install

from benchmarks.peers import oban_worker

_DSN = os.environ["FLOWSTONE_DATABASE_URL"]


async def prepare() -> None:
    """Make the tables."""
    pool = await Oban.create_pool(_DSN)
    await install(pool)
    await pool.close()


if sys.argv[1:] == ["install"]:
    uvloop.run(prepare())
else:
    sys.argv[1:] = [json.dumps({"dsn": _DSN, "queues": {"default": 10}})]
    uvloop.run(oban_worker.main())
