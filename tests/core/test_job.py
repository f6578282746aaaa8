from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstone.core.job import Job
from flowstone.errors import PartitionError

_zones = st.sampled_from(
    [UTC, ZoneInfo("Europe/Berlin"), ZoneInfo("UTC"), timezone(timedelta(hours=5, minutes=30))]
)
# fold says nothing in a zone without repeated hours, and is not kept there
_moments = st.datetimes(timezones=_zones, allow_imaginary=False).map(
    lambda moment: moment if isinstance(moment.tzinfo, ZoneInfo) else moment.replace(fold=0)
)
_leaves = st.text() | st.integers() | st.booleans() | st.dates() | _moments
_partitions = st.none() | st.recursive(
    _leaves, lambda inner: st.lists(inner | st.none(), max_size=3).map(tuple), max_leaves=3
)
_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=4,
)
_names = st.text(st.characters(codec="utf-8"))
_jobs = st.builds(
    Job,
    id=st.integers(0, 2**63 - 1),
    asset=_names,
    partition=_partitions,
    run_id=_names,
    executor=_names,
    priority=st.integers(0, 9),
    scheduled_at=st.none() | _moments,
    deduplicated=st.booleans(),
    metadata=st.dictionaries(_names, _json, max_size=3),
)


@given(_jobs)
def test_a_job_comes_back_exactly(job: Job) -> None:
    again = Job.from_json(json.loads(json.dumps(job.to_json(), allow_nan=False)))
    assert again == job
    assert repr(again) == repr(job)  # equality alone would take True for 1, and one zone for another
    assert again.partition_key == job.partition_key


def test_a_string_that_looks_like_a_date_stays_a_string() -> None:
    job = Job(id="1", asset="a", partition="2024-01-01", run_id="r", executor="sync")
    again = Job.from_json(job.to_json())
    assert (again.partition, type(again.partition)) == ("2024-01-01", str)
    assert again.key != Job(id="1", asset="a", partition=date(2024, 1, 1), run_id="r", executor="sync").key


def test_the_zone_of_the_start_is_kept() -> None:
    due = datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin"))
    job = Job(id="1", asset="a", partition=None, run_id="r", executor="sync", scheduled_at=due)
    again = Job.from_json(job.to_json()).scheduled_at
    assert again is not None
    assert (again.tzinfo, again.fold, again.utcoffset()) == (due.tzinfo, 1, timedelta(hours=1))


def test_foreign_partitions_are_refused() -> None:
    document = Job(id="1", asset="a", partition=None, run_id="r", executor="sync").to_json()
    with pytest.raises(PartitionError):
        Job.from_json(document | {"partition": "no tag"})
