"""What makers make is what the class makes: frozen, equal, hashable and picklable like any other."""

import copy
import inspect
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from flowstone.core.frozen import maker
from flowstone.core.job import Job, make_job
from flowstone.core.outcome import Succeeded, succeeded
from flowstone.core.output import StoredOutput, make_stored
from flowstone.core.run_details import RunInfo, make_run_info
from flowstone.core.state import State
from flowstone.core.step import Attempt, CommitResult, NewStep, make_attempt, make_commit_result, make_step
from flowstone.engine.run_spec import RunSpec, make_spec
from flowstone.errors import OptionsError


@dataclass(frozen=True, slots=True)
class Made[T]:
    first: int
    names: list[str] = field(default_factory=list)
    last: str = "z"
    chosen: set[int] = field(default_factory=set)
    count: int = field(default=0, kw_only=True)
    made: list[int] = field(default_factory=list, init=False)
    doubled: int = field(default=7, init=False)

    def __post_init__(self) -> None:
        if self.first < 0:
            raise ValueError(self.first)


@dataclass(slots=True)
class Open:
    first: int
    last: int = 5


make_made: Callable[..., Made[int]] = maker(Made)
make_open = maker(Open)


def test_it_makes_what_the_class_makes() -> None:
    one, other = make_made(1), make_made(1, ["a"], count=3)

    assert (one.first, one.names, one.last, one.chosen, one.count) == (1, [], "z", set(), 0)
    assert (one.made, one.doubled) == ([], 7)
    assert (other.names, other.count) == (["a"], 3)
    assert one == Made[int](1)
    assert one != other
    assert type(one) is Made
    assert list(inspect.signature(make_made).parameters) == list(inspect.signature(Made).parameters)
    assert make_open(1) == Open(1)
    assert type(make_open(1)) is Open


def test_of_a_class_that_takes_keywords_alone_it_takes_them_by_position_too() -> None:
    named = {"id": 1, "asset": "a", "partition": None, "run_id": "r", "executor": "sync", "priority": 2}

    assert make_job(*named.values()) == make_job(**named) == Job(**named)


def test_each_has_containers_of_its_own() -> None:
    one = make_made(1)
    one.names.append("x")
    one.made.append(1)
    one.chosen.add(1)

    assert (make_made(1).names, make_made(1).made, make_made(1).chosen) == ([], [], set())


def test_it_is_frozen_and_what_post_init_raises_is_raised() -> None:
    one = make_made(1)

    with pytest.raises(FrozenInstanceError):
        one.first = 2  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        del one.first
    with pytest.raises(ValueError, match="-1"):
        make_made(-1)
    with pytest.raises(TypeError, match="first"):
        make_made()
    with pytest.raises(OptionsError, match="force=2"):
        make_spec(kind="backfill", selection="a", targets=[], force=2)  # type: ignore[arg-type]


NOW = datetime(2024, 1, 1, tzinfo=UTC)
PAIRS: list[tuple[Callable[..., Any], Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = [
    (StoredOutput, make_stored, ("io", "place"), {"size_bytes": 3, "metadata": {"rows": 1}}),
    (Succeeded, succeeded, (StoredOutput("io", "place"), 5), {}),
    (Job, make_job, (), {"id": 1, "asset": "a", "partition": None, "run_id": "r", "executor": "sync"}),
    (RunInfo, make_run_info, (), {"id": "r", "kind": "backfill"}),
    (RunSpec, make_spec, (), {"kind": "backfill", "selection": "a", "targets": [("a", "")]}),
    (NewStep, make_step, ("a", ""), {"forced": True}),
    (Attempt, make_attempt, (1, "r", "a", "", 1, 1, 1, NOW), {}),
    (CommitResult, make_commit_result, (1, State.COMPLETED), {"accepted": True}),
]


@pytest.mark.parametrize(("cls", "make", "given", "named"), PAIRS, ids=lambda one: getattr(one, "__name__", ""))
def test_what_every_step_makes_is_copied_and_pickled(
    cls: Callable[..., Any], make: Callable[..., Any], given: tuple[Any, ...], named: dict[str, Any]
) -> None:
    one = make(*given, **named)

    assert one == cls(*given, **named)
    for same in (copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one)), replace(one)):
        assert same == one
        assert type(same) is cls
        assert repr(same) == repr(one)


def test_what_is_no_dataclass_with_slots_of_its_own_is_refused() -> None:
    @dataclass(frozen=True)
    class WithDict:
        a: int = 0

    @dataclass(frozen=True, slots=True)
    class More(StoredOutput):
        b: int = 0

    for refused in (WithDict, More, int):
        with pytest.raises(TypeError, match="no dataclass with slots"):
            maker(refused)
