from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from flowstone.core import recordable
from flowstone.core.outcome import Failed, Succeeded
from flowstone.core.output import StoredOutput
from flowstone.core.step import Attempt, AttemptResult, InputVersion

NOW = datetime(2024, 1, 1, tzinfo=UTC)
PLAIN = StoredOutput("memory", "1-1", value_type="builtins.int")
WRITTEN = StoredOutput("filesystem", "a/b", "json", 2, "ab", "builtins.int", payload=b"{}")
READ = InputVersion("raw", "raw", "", 3)


class Text(str):
    __slots__ = ()


def ended(stored: Any = PLAIN, inputs: Any = (READ,), **more: Any) -> AttemptResult:
    fields = {"finished_at": NOW, "ran": True, "code_version": "2"} | more
    return AttemptResult(Attempt(1, "r", "a", "", 1, 1, 1, NOW), Succeeded(stored, 1), inputs, **fields)


@pytest.mark.parametrize("usual", [ended(), ended(WRITTEN, ()), ended(code_version=None), ended(ran=False)])
def test_the_usual_end_is_committed_as_it_is(usual: AttemptResult) -> None:
    assert recordable._made_recordable(replace(usual)) == usual
    assert recordable.is_plain(usual.outcome, usual.code_version)
    assert recordable.make_recordable(usual) is usual


UNUSUAL = {
    "location": replace(PLAIN, location="a\x00b"),
    "io": replace(PLAIN, io=5),
    "value_type": replace(PLAIN, value_type="\ud800"),
    "serializer": replace(WRITTEN, serializer=b"json"),
    "content_hash": replace(WRITTEN, content_hash="\x00"),
    "size_bytes": replace(WRITTEN, size_bytes=-1),
    "a size as a bool": replace(PLAIN, size_bytes=True),
    "payload": replace(WRITTEN, payload="text"),
    "no stored output": None,
}


@pytest.mark.parametrize("unusual", [ended(one) for one in UNUSUAL.values()], ids=list(UNUSUAL))
def test_what_cannot_be_recorded_of_an_output_fails_its_step(unusual: AttemptResult) -> None:
    outcome = recordable.make_recordable(unusual).outcome
    assert isinstance(outcome, Failed)
    assert "cannot be recorded" in outcome.error


@pytest.mark.parametrize(
    "more",
    [
        {"inputs": [READ]},
        {"inputs": (("raw", "raw", "", 3),)},
        {"inputs": (READ._replace(step_id=2**63),)},
        {"inputs": (READ._replace(parameter="\x00"),)},
        {"finished_at": datetime(2024, 1, 1)},
        {"finished_at": "now"},
        {"ran": 1},
        {"code_version": b"2"},
        {"code_version": ["2"]},
        {"checks": []},
        {"checks": None},
        {"retry_in_seconds": -1.0},
    ],
)
def test_what_cannot_be_recorded_of_an_attempt_fails_its_step(more: dict[str, Any]) -> None:
    assert isinstance(recordable.make_recordable(ended(**more)).outcome, Failed)


def test_what_is_unusual_and_can_be_recorded_is_left_to_the_full_look() -> None:
    for unusual in (
        ended(replace(PLAIN, location="été")),
        ended(replace(PLAIN, location=Text("a"))),
        ended(replace(PLAIN, metadata={"rows": 3})),
    ):
        assert not recordable.is_plain(unusual.outcome, unusual.code_version)
        assert isinstance(recordable.make_recordable(unusual).outcome, Succeeded)
    assert recordable.make_recordable(ended(code_version="v" * 5000)).code_version != "v" * 5000
