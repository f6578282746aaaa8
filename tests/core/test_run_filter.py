"""Which runs are meant, as people write it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstone.core.run_filter import RUN_STATES, RunFilter
from flowstone.core.state import State
from flowstone.core.step import RunRecord
from flowstone.errors import OptionsError

NOW = datetime(2024, 5, 2, 12, tzinfo=UTC)
# what no database can keep, and what is blank, no run can have
_TEXT = st.characters(exclude_characters="\x00", exclude_categories=["Cs"])
_VALUES = st.lists(st.text(_TEXT, min_size=1, max_size=30).filter(str.strip), max_size=3, unique=True)


def run(**fields: object) -> RunRecord:
    known = {"id": "r", "kind": "backfill", "selection": "a", "executor": "oban", "state": State.FAILED}
    known |= {"priority": 4, "max_concurrency": None, "created_at": NOW - timedelta(hours=2)}
    return RunRecord(**known | fields)  # type: ignore[arg-type]


@given(_VALUES, _VALUES, st.lists(st.sampled_from(RUN_STATES), unique=True))
def test_what_is_written_is_what_is_read(assets: list[str], tags: list[str], states: list[str]) -> None:
    made = RunFilter(asset=tuple(assets), not_tag=tuple(tags), state=tuple(states), since="24h")
    assert RunFilter.parse(str(made)) == made
    assert RunFilter.parse(list(made.words())) == made


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("state:failed", True),
        ("state:failed state:cancelled", True),
        ("state:completed", False),
        ("-state:failed", False),
        ("kind:backfill asset:orders since:24h", True),
        ("since:1h", False),
        ("-since:1h", True),
        ("until:2024-05-02", False),
        ("asset:lines", False),
        ("-asset:lines", True),
        ("by:ann", True),
        ("by:*", True),
        ("-by:*", False),
        ("automation:ann", False),
        ("-automation:*", True),
        ("tag:nightly", False),
    ],
)
def test_a_run_is_meant(text: str, meant: bool) -> None:
    one = run(assets=("orders",), requested_by="ann", requested_via="cli")
    assert RunFilter.parse(text).matches(one, NOW) is meant


def test_runs_of_automations_are_not_those_of_people() -> None:
    one = run(requested_by="nightly", requested_via="automation", state=State.RUNNING, paused=True)
    for text, meant in (
        ("automation:nightly", True),
        ("automation:*", True),
        ("-automation:other", True),
        ("-automation:*", False),
        ("by:nightly", False),
        ("state:paused", True),
        ("state:running", True),
        ("state:running -state:paused", False),
    ):
        assert RunFilter.parse(text).matches(one, NOW) is meant, text


@pytest.mark.parametrize(
    "text",
    [
        "failed",
        "state:faild",
        "stat:failed",
        "asset:",
        'asset:"x',
        'asset:""',
        "since:soon",
        "since:9999999d",
        "since:24h since:2h",
        "-items_of:r1",
        "asset:a\x00b",
        "asset:a\ud800b",
        "asset:" + "x" * 2001,
        " ".join(f"tag:{n}" for n in range(51)),
        "state:failed;drop",
        ":",
        "-",
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_way_to_write_it(text: str) -> None:
    with pytest.raises(OptionsError):
        RunFilter.parse(text)


@pytest.mark.parametrize(
    "wrong",
    [
        {"tag": "urgent"},
        {"asset": 5},
        {"not_by": [None]},
        {"kind": [""]},
        {"tag": ["a\x00"]},
        {"items_of": "\ud800"},
        {"since": NOW},
        {"until": 24},
    ],
)
def test_values_that_no_run_can_have_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionsError, match=f"^{next(iter(wrong))}[:=].* give "):
        RunFilter(**wrong)


def test_a_list_of_values_is_as_good_as_a_tuple() -> None:
    assert RunFilter(tag=["a", "b"]) == RunFilter(tag=("a", "b"))  # type: ignore[arg-type]


def test_members_of_enumerations_are_their_values() -> None:
    """Also of one that is shown by its name: the filter of a preview is the one that is confirmed."""

    class Team(str, Enum):  # noqa: UP042 - that is meant
        OPS = "ops"

    made = RunFilter(tag=(Team.OPS,), items_of=Team.OPS)
    assert str(made) == "tag:ops items_of:ops"
    assert RunFilter.parse(str(made)) == made


@pytest.mark.parametrize("given", [5, NOW, None, [5], [b"tag:a"], b"tag:a"])
def test_what_cannot_be_read_is_refused(given: Any) -> None:
    with pytest.raises(OptionsError, match="give "):
        RunFilter.parse(given)


@pytest.mark.parametrize("given", [None, 5, b"state:failed", ["state:failed"]])
def test_what_is_no_filter_is_refused(given: Any) -> None:
    with pytest.raises(OptionsError, match="give a RunFilter, or a text"):
        RunFilter.of(given)


def test_ages_become_times_that_stay() -> None:
    fixed = RunFilter.parse("since:24h tag:x").at(NOW)
    assert fixed.times(NOW + timedelta(days=9)) == (NOW - timedelta(hours=24), None)
    assert not RunFilter.parse("  ")
