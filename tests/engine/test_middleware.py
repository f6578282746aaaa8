from __future__ import annotations

import logging
import re
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import pytest

from flowstone import telemetry
from flowstone.app import FlowStone
from flowstone.core.asset import asset
from flowstone.core.context import AssetContext
from flowstone.core.outcome import AttemptOutcome, Failed, Skipped, Succeeded
from flowstone.core.output import OutputAddress, StoredOutput
from flowstone.core.state import State
from flowstone.errors import SerializationError
from flowstone.io import MemoryIO
from flowstone.protocols import StepCall


@asset
def one() -> int:
    return 1


@asset
def broken() -> int:
    raise ValueError("no luck")


class Noting:
    def __init__(self, name: str, notes: list[str]) -> None:
        self.name, self.notes = name, notes

    def call(self, context: AssetContext, step: StepCall) -> AttemptOutcome:
        self.notes.append(f"{self.name} before {context.asset.name}")
        outcome = step(context)
        self.notes.append(f"{self.name} after {type(outcome).__name__}")
        return outcome


def test_hooks_are_middleware_and_see_the_stored_output() -> None:
    notes: list[str] = []
    seen: list[AttemptOutcome] = []

    class Seeing:
        def call(self, context: AssetContext, step: StepCall) -> AttemptOutcome:
            seen.append(step(context))
            return seen[-1]

    flow = FlowStone.for_testing([one, broken], hooks=[Noting("outer", notes), Noting("inner", notes), Seeing()])
    flow.materialize("one")
    assert notes == ["outer before one", "inner before one", "inner after Succeeded", "outer after Succeeded"]
    assert isinstance(seen[0], Succeeded)
    assert seen[0].stored.io == "memory"
    with pytest.raises(ValueError, match="no luck"):
        flow.materialize("broken")
    assert isinstance(seen[1], Failed)


def test_a_hook_may_answer_by_itself() -> None:
    class Closed:
        def call(self, context: AssetContext, step: StepCall) -> AttemptOutcome:
            return Skipped("closed today")

    flow = FlowStone.for_testing([one], hooks=[Closed()])
    done = flow.materialize("one")
    assert (done.state, flow.runs.step(done.step_id).reason) == (State.SKIPPED, "closed today")


def test_a_hook_that_raises_fails_the_step() -> None:
    class Clumsy:
        def call(self, context: AssetContext, step: StepCall) -> AttemptOutcome:
            step(context)
            raise RuntimeError("oops")

    flow = FlowStone.for_testing([one], hooks=[Clumsy()])
    with pytest.raises(RuntimeError, match="oops"):
        flow.materialize("one")
    assert not flow.exists("one")


def test_a_hook_that_forgets_to_answer_is_reported() -> None:
    class InMemory:
        def call(self, context: AssetContext, step: StepCall) -> AttemptOutcome:
            step(context)
            return None  # type: ignore[return-value]

    flow = FlowStone.for_testing([one], hooks=[InMemory()])
    with pytest.raises(TypeError, match=r"return step\(context\)"):
        flow.materialize("one")
    assert not flow.exists("one")


class FlakyIO(MemoryIO):
    """Fails a number of times before it stores."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures

    def store(self, value: object, address: OutputAddress) -> StoredOutput:
        if self.failures:
            self.failures -= 1
            raise OSError("the network blinked")
        return super().store(value, address)


def test_storing_alone_is_repeated() -> None:
    calls: list[int] = []

    @asset
    def counted() -> int:
        calls.append(1)
        return 5

    flow = FlowStone.for_testing([counted], io={"memory": FlakyIO(2)})
    assert flow.materialize("counted").value == 5
    assert calls == [1]


def test_storing_is_given_up_and_the_previous_version_stays() -> None:
    manager = FlakyIO(0)
    flow = FlowStone.for_testing([one], io={"memory": manager})
    flow.materialize("one")
    manager.failures = 100
    with pytest.raises(OSError, match="blinked"):
        flow.materialize("one", force=True)
    manager.failures = 0
    assert flow.load("one") == 1


@pytest.mark.parametrize("kind", ["generator", "iterator", "async generator"])
def test_values_that_can_be_read_once_are_refused(kind: str) -> None:
    async def agen():
        yield 1

    @asset
    def once():
        return {"generator": lambda: (n for n in [1]), "iterator": lambda: iter([1]), "async generator": agen}[
            kind
        ]()

    with pytest.raises(SerializationError, match="'once' returned something that can be read only once"):
        FlowStone.for_testing([once]).materialize("once")


@dataclass
class Held:
    name: str
    rows: object


class Pair(NamedTuple):
    name: str
    rows: object


@contextmanager
def opened() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (lambda: Held("a", iter([1])), "$.rows"),
        (lambda: Pair("a", map(str, [1])), "$.rows"),
        (lambda: [Held("a", {"x": (1, zip("ab"))})], '$[0].rows["x"][1]'),
        (lambda: deque([iter([1])]), "$[0]"),
        (lambda: OrderedDict(a=iter([1])), '$["a"]'),
        (opened, "$"),
    ],
)
def test_read_once_values_are_found_in_objects(value: Callable[[], object], place: str) -> None:
    once = asset(name="once")(value)
    with pytest.raises(SerializationError, match=rf"read only once.* at {re.escape(place)} "):
        FlowStone.for_testing([once]).materialize("once")


def test_a_coroutine_that_a_plain_function_returns_is_awaited() -> None:
    async def later() -> int:
        return 5

    @asset
    def wrapped():
        return later()

    assert FlowStone.for_testing([wrapped]).materialize("wrapped").value == 5


def test_telemetry_reports_of_steps() -> None:
    events: list[tuple[str, dict, dict]] = []
    telemetry.attach("test", ["step.st*", "step.exception"], lambda *event: events.append(event))
    try:
        flow = FlowStone.for_testing([one, broken])
        flow.materialize("one", run_id="r")
        with pytest.raises(ValueError, match="no luck"):
            flow.materialize("broken")
    finally:
        telemetry.detach("test")
    assert [event for event, _, _ in events] == ["step.start", "step.stop", "step.start", "step.exception"]
    about = events[1][2]
    assert (about["asset"], about["partition"], about["run_id"], about["attempt"]) == ("one", "", "r", 1)
    assert about["outcome"] == "succeeded"
    assert events[1][1]["duration_seconds"] >= 0
    assert events[3][2]["error_type"] == "builtins.ValueError"


def test_log_records_inside_a_step_carry_its_fields() -> None:
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    handler.addFilter(telemetry.StepLogFilter())
    library = logging.getLogger("some.library")

    @asset
    async def talks():
        library.warning("inside")

    library.addHandler(handler)
    try:
        FlowStone.for_testing([talks]).materialize("talks", run_id="r")
        library.warning("outside")
    finally:
        library.removeHandler(handler)
    assert [(r.asset, r.run_id, r.attempt) for r in records] == [("talks", "r", 1), ("", "", "")]  # type: ignore[attr-defined]


def test_a_value_of_an_unknown_manager_says_what_to_declare() -> None:
    flow = FlowStone.for_testing([one])
    with pytest.raises(LookupError, match="stored by the IO manager 'elsewhere'"):
        flow.parts.values.load(StoredOutput("elsewhere", "x"))
