from __future__ import annotations

import json
import pickle
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstone import AwaitApproval
from flowstone.core.approval import MAX_JSON, Approval, ApprovalState, portable_json
from flowstone.engine.failures import outcome_of
from flowstone.engine.isolated.exceptions import carry, restore
from flowstone.errors import SerializationError

AT = datetime(2024, 1, 1, tzinfo=UTC)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def approval(**fields: object) -> Approval:
    known: dict[str, object] = {
        "id": 7,
        "step_id": 1,
        "run_id": "r",
        "asset": "a",
        "partition_key": "",
        "message": "?",
    }
    return Approval(**known | {"created_at": AT, "expires_at": AT} | fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "timeout", [0, -1, float("nan"), float("inf"), 31_536_001, timedelta(0), timedelta(days=366)]
)
def test_times_that_cannot_work(timeout: float | timedelta) -> None:
    with pytest.raises(ValueError, match="at most a year"):
        AwaitApproval("?", timeout=timeout)


@pytest.mark.parametrize(
    "arguments",
    [
        {"message": ""},
        {"message": "  \n"},
        {"message": 3},
        {"message": "?", "gate": ""},
        {"message": "?", "gate": "g" * 201},
        {"message": "?", "on_timeout": "fail"},
    ],
)
def test_arguments_that_cannot_work(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="AwaitApproval"):
        AwaitApproval(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value", [object(), {1: 2}, (1, 2), {"a": float("nan")}, {1, 2}, b"x", datetime.now(UTC), "x" * MAX_JSON]
)
def test_what_would_not_come_back_as_it_was_is_refused(value: object) -> None:
    with pytest.raises(SerializationError, match="resume"):
        AwaitApproval("?", resume=value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [object(), {1: 2}, b"x", "x" * MAX_JSON])
def test_data_without_a_plain_form_is_refused(value: object) -> None:
    with pytest.raises(SerializationError, match="data"):
        AwaitApproval("?", data=value)  # type: ignore[arg-type]


def test_data_for_people_gets_its_plain_form() -> None:
    requested = AwaitApproval("?", data={"day": date(2024, 1, 5), "names": ("a",), "share": float("nan")})
    assert requested.data_json == '{"day": "2024-01-05", "names": ["a"], "share": "NaN"}'


def test_a_circle_is_refused() -> None:
    circle: list[object] = []
    circle.append(circle)
    with pytest.raises(SerializationError):
        AwaitApproval("?", resume=circle)  # type: ignore[arg-type]


@given(json_values)
def test_plain_json_comes_back(value: object) -> None:
    assert json.loads(portable_json(value, "data")) == value  # type: ignore[arg-type]


def test_later_changes_change_nothing() -> None:
    rows = [1]
    requested = AwaitApproval("?", resume=rows)
    rows.append(2)
    assert requested.resume_json == "[1]"


def test_it_travels() -> None:
    requested = AwaitApproval("Pay?", data={"sum": 3}, timeout=60, on_timeout="skip", resume=[1], gate="money")
    arrived = restore(carry(requested), "a", pid=1)
    assert isinstance(arrived, AwaitApproval)
    assert outcome_of(arrived, None) == outcome_of(requested, None)
    assert (arrived.gate, arrived.timeout_seconds, arrived.on_timeout) == ("money", 60.0, "skip")
    assert pickle.loads(pickle.dumps(approval(data={"a": 1}))) == approval(data={"a": 1})


def test_texts_are_cleaned_on_their_way_to_the_store() -> None:
    outcome = outcome_of(AwaitApproval("a\x00b\x1b[31m", gate="g\ud800"), None)
    assert (outcome.message, outcome.gate) == ("a\\x00b", "g\\ud800")  # type: ignore[union-attr]


def test_what_silence_means() -> None:
    expired = {"state": ApprovalState.EXPIRED, "decided_at": AT}
    meanings = {
        meaning: (one.approved, one.rejected)
        for meaning in ("approve", "reject", "skip")
        for one in [approval(on_timeout=meaning, **expired)]
    }
    assert meanings == {"approve": (True, False), "reject": (False, True), "skip": (False, False)}
    assert approval(on_timeout="skip", **expired).verdict() == (
        "expired at 2024-01-01 00:00:00 UTC, which means: skip"
    )
    assert approval().verdict() == "not decided yet"
    error = approval(state=ApprovalState.APPROVED, decided_by="ann", decided_at=AT).too_late()
    assert (error.approval_id, error.state, error.decided_by, error.decided_at) == (7, "approved", "ann", AT)
