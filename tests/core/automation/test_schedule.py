from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from flowstone import Schedule, asset
from flowstone.errors import DefinitionError, OptionsError


@asset
def sales() -> int:
    return 1


def test_the_name_is_made_from_the_selection() -> None:
    assert Schedule(sales, "0 6 * * *").name == "sales"
    assert Schedule("+sales", "0 6 * * *").name == "+sales"
    assert Schedule([sales, "b"], "0 6 * * *").name == "sales, b"
    assert Schedule(sales, "0 6 * * *", name="nightly").name == "nightly"


def test_a_selection_may_be_an_iterator() -> None:
    schedule = Schedule(iter([sales]), "0 6 * * *")
    assert schedule.request(None).selection == schedule.selection == (sales,)


def test_next_ticks_are_on_the_clock_of_the_zone() -> None:
    schedule = Schedule(sales, "30 2 * * *", timezone="Europe/Berlin")
    ticks = schedule.next_ticks(datetime(2024, 10, 26, 12, tzinfo=UTC), 2)
    assert [tick.isoformat() for tick in ticks] == ["2024-10-27T02:30:00+02:00", "2024-10-28T02:30:00+01:00"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"cron": "0 25 * * *"}, "Schedule 'nightly': cron='0 25 * * *': '25' is no hour"),
        ({"timezone": "Europe/Berln"}, "Did you mean 'Europe/Berlin'?"),
        ({"catch_up": "al"}, "Did you mean 'all'?"),
        ({"partition": "2024-01-01"}, "give a function of the instant"),
        ({"name": "a\nb"}, "printable"),
        ({"name": "x" * 121}, "1 to 120"),
    ],
)
def test_what_cannot_work_is_refused_when_it_is_declared(options: dict[str, Any], says: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        Schedule(sales, **({"cron": "0 6 * * *", "name": "nightly"} | options))
    assert says in str(refused.value)


def test_an_impossible_priority_is_refused() -> None:
    with pytest.raises(OptionsError, match="priority=10"):
        Schedule(sales, "0 6 * * *", priority=10)
