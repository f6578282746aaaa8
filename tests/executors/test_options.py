from __future__ import annotations

import math
import threading
from datetime import UTC, datetime, timedelta

import pytest

from flowstone.core.job import Job
from flowstone.errors import CapabilityError, OptionsError
from flowstone.executors.inline import (
    MAX_OPTIONS_BYTES,
    check_options,
    check_portable,
    refuse_later,
    seconds_option,
)


def test_unknown_options_get_a_suggestion() -> None:
    with pytest.raises(OptionsError, match=r"'sync' has no option 'timeout'. Did you mean 'timeout_seconds'\?"):
        check_options("sync", {"timeout": 1}, frozenset({"timeout_seconds"}))
    with pytest.raises(OptionsError, match="Its options: retry"):
        check_options("sync", {"x": 1}, frozenset())


@pytest.mark.parametrize("value", [threading.Lock(), {1, 2}, object(), math.nan, datetime.now(UTC), b"bytes"])
def test_objects_do_not_travel(value: object) -> None:
    with pytest.raises(OptionsError, match="'thing' cannot be sent"):
        check_portable("oban", {"fine": [1, "a", None], "thing": value})


def test_cycles_and_giants_do_not_travel() -> None:
    cyclic: list[object] = []
    cyclic.append(cyclic)
    with pytest.raises(OptionsError, match="cannot be sent"):
        check_portable("oban", {"thing": cyclic})
    with pytest.raises(OptionsError, match=f"more than {MAX_OPTIONS_BYTES:,}"):
        check_portable("oban", {"thing": "x" * 10_000_000})
    check_portable("oban", {"thing": {"nested": [1.5, True]}})


def test_durations() -> None:
    assert seconds_option("t", None) is None
    assert seconds_option("t", 5) == 5.0
    assert seconds_option("t", timedelta(minutes=1)) == 60.0


@pytest.mark.parametrize("value", [0, -1, math.nan, True, "5", timedelta(0), [5]])
def test_what_is_no_duration_is_refused(value: object) -> None:
    with pytest.raises(OptionsError, match="t="):
        seconds_option("t", value)


def test_later_is_refused_with_the_name() -> None:
    job = Job(id=1, asset="a", partition=None, run_id="r", executor="x", scheduled_at=datetime.now(UTC))
    with pytest.raises(CapabilityError, match="'x' does not offer 'scheduled_at'"):
        refuse_later("x", job)
