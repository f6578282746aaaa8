from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from flowstone.app import FlowStone
from flowstone.config import Settings
from flowstone.core.asset import Asset
from flowstone.testing.executor_conformance import ExecutorConformance
from flowstone.testing.marks import DIRECTORY


@pytest.mark.slow
class TestOban(ExecutorConformance):
    """The suite with the work in another process: a worker started as users start it."""

    executor = "oban"

    @pytest.fixture(autouse=True)
    def _worker(self, database_url: str, tmp_path: Path, _marks: None) -> Iterator[None]:
        self.settings = Settings(database_url=database_url, storage=str(tmp_path / "storage"))
        environment = os.environ | {
            "FLOWSTONE_DATABASE_URL": database_url,
            "FLOWSTONE_STORAGE": self.settings.storage,
            DIRECTORY: str(tmp_path / "marks"),
        }
        command = [
            sys.executable,
            "-m",
            "flowstone",
            "worker",
            "--app",
            "flowstone.testing.conformance_assets:flow",
        ]
        log = (tmp_path / "worker.log").open("wb")
        with log, subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=log, stderr=log) as worker:
            try:
                yield
                assert worker.poll() is None, (tmp_path / "worker.log").read_text()
            finally:
                self.marks.leave("gate")
                worker.terminate()
                try:
                    worker.wait(60)
                except subprocess.TimeoutExpired:
                    worker.kill()

    def make_flow(self, assets: Sequence[Asset], **options: Any) -> FlowStone:
        return FlowStone(assets, settings=self.settings, **options)
