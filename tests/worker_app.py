"""What the apps of worker processes share: settings with short times, and the program of a worker."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from flowstone import FlowStone
from flowstone.app.worker import serve
from flowstone.config import Settings

DIRECTORY = "FAULTS_DIR"
"""Environment variable with the directory in which a worker says that it is ready."""
QUEUES = "FAULTS_QUEUES"
BEAT_SECONDS, LEASE_SECONDS, SWEEP_SECONDS = 0.3, 2.0, 0.5


def short_settings(database_url: str, storage: str, **more: Any) -> Settings:
    """Return settings with times short enough for tests."""
    times = {"beat_seconds": BEAT_SECONDS, "lease_seconds": LEASE_SECONDS, "sweep_seconds": SWEEP_SECONDS}
    given = {"executor": "oban", "grace_seconds": 1.0} | times | more
    return Settings(database_url=database_url, storage=storage, **given)


def run_worker(make_flow: Callable[[str, str], FlowStone]) -> NoReturn:
    """Run a worker of an app as the environment says, until it is stopped."""
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)d %(levelname)s %(name)s %(message)s")
    flow = make_flow(os.environ["FLOWSTONE_DATABASE_URL"], os.environ["FLOWSTONE_STORAGE"])
    ready = Path(os.environ[DIRECTORY]) / f"ready-{os.getpid()}"
    sys.exit(serve(flow, queues=json.loads(os.environ[QUEUES]), on_ready=ready.touch))
