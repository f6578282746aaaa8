"""What the parts of the executor conformance suite share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from flowstone.app import FlowStone
from flowstone.core.asset import Asset
from flowstone.core.capability import Capability
from flowstone.core.job import Job
from flowstone.core.state import State
from flowstone.core.step import StepRecord
from flowstone.errors import StepFailedError
from flowstone.protocols import Executor
from flowstone.testing.conformance_assets import ASSETS
from flowstone.testing.conformance_checks import CHECKS
from flowstone.testing.marks import DIRECTORY, Marks, wait_until

TIMEOUT_SECONDS = 60.0
"""How long a test waits for something that must happen."""


class ExecutorCase(ABC):
    """Gives every test an app on a new store, with the marks of its assets in a new directory.

    Attributes:
        executor: name of the executor under test, or the executor.
    """

    executor: str | Executor = "sync"

    @abstractmethod
    def make_flow(self, assets: Sequence[Asset], **options: Any) -> FlowStone:
        """Return an app of these assets on a new, empty store on which the executor works."""

    @pytest.fixture(autouse=True)
    def _marks(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        directory = tmp_path / "marks"
        directory.mkdir()
        monkeypatch.setenv(DIRECTORY, str(directory))
        self.marks = Marks(directory)

    @pytest.fixture
    def flow(self, _marks: None) -> Iterator[FlowStone]:
        """An app of the conformance assets."""
        app = self.make_flow(ASSETS, checks=CHECKS)
        try:
            yield app
        finally:
            self.marks.leave("gate")  # nobody is left behind in front of it
            app.close()

    def has(self, flow: FlowStone, capability: Capability) -> bool:
        """Whether the executor declares a capability."""
        return capability in flow.parts.executors.get(self.executor).capabilities

    def need(self, flow: FlowStone, capability: Capability) -> None:
        """Skip the test when the executor does not declare a capability."""
        if not self.has(flow, capability):
            pytest.skip(f"the executor does not declare {capability.value!r}")

    def concurrent(self, flow: FlowStone) -> bool:
        """Whether placed work runs beside its caller."""
        return self.has(flow, Capability.CONCURRENT) or self.has(flow, Capability.DURABLE)

    def failure(self, call: Callable[[], object]) -> BaseException:
        """Return what a call raises, which must be something."""
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - what the test looks at
            return error
        raise AssertionError("nothing was raised")

    def latest(self, flow: FlowStone) -> StepRecord:
        """Return the last step of the newest run."""
        (run,) = flow.runs.latest(limit=1)
        return flow.runs.steps(run.id)[-1]

    def is_error(self, error: BaseException, kind: type[BaseException], text: str) -> None:
        """Check an error of an asset: itself, or what reports it when the asset ran elsewhere."""
        assert isinstance(error, kind | StepFailedError), f"{error!r} is not a {kind.__name__}"
        assert text in str(error)

    def ended(self, flow: FlowStone, job: Job | int) -> State:
        """Wait until a job is over and return its state."""
        over = wait_until(lambda: flow.job_status(job).is_terminal, timeout_seconds=TIMEOUT_SECONDS)
        assert over, f"the job is still {flow.job_status(job)}"
        return flow.job_status(job)

    def run(self, flow: FlowStone, asset: str, **how: Any) -> Any:
        """Materialize one asset on the executor under test and return its value."""
        return flow.materialize(asset, executor=self.executor, **how).value
