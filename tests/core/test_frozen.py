"""Frozen dataclasses that are made quickly are frozen, equal, hashable and picklable like any other."""

import copy
import inspect
import pickle
from dataclasses import FrozenInstanceError, dataclass, field, replace

import pytest

from flowstone.core.frozen import quickly_made
from flowstone.core.job import Job
from flowstone.core.outcome import Succeeded
from flowstone.core.output import StoredOutput
from flowstone.core.run_details import RunInfo
from flowstone.engine.run_spec import RunSpec
from flowstone.executors.inline import PlacingOptions


@quickly_made
@dataclass(frozen=True, slots=True)
class Made[T]:
    first: int
    names: list[str] = field(default_factory=list)
    last: str = "z"
    count: int = field(default=0, kw_only=True)
    made: list[int] = field(default_factory=list, init=False)
    doubled: int = field(default=7, init=False)

    def __post_init__(self) -> None:
        if self.first < 0:
            raise ValueError(self.first)


class Plainer(Made[int]):
    """A subclass without fields, and with a dict."""


def test_it_is_made_as_dataclasses_make_it() -> None:
    one, other = Made[int](1), Made[int](1, ["a"], count=3)

    assert (one.first, one.names, one.last, one.count, one.made, one.doubled) == (1, [], "z", 0, [], 7)
    assert (other.names, other.count) == (["a"], 3)
    assert one == Made[int](1)
    assert one != other
    assert type(one) is Made
    assert list(inspect.signature(Made).parameters) == ["first", "names", "last", "count"]


def test_each_has_containers_of_its_own() -> None:
    one = Made[int](1)
    one.names.append("x")
    one.made.append(1)

    assert (Made[int](1).names, Made[int](1).made) == ([], [])


def test_it_is_frozen_and_what_post_init_raises_is_raised() -> None:
    one = Made[int](1)

    with pytest.raises(FrozenInstanceError):
        one.first = 2  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        del one.first
    with pytest.raises(ValueError, match="-1"):
        Made[int](-1)
    with pytest.raises(TypeError, match="first"):
        Made()  # type: ignore[call-arg]


def test_a_subclass_stays_one() -> None:
    one = Plainer(1, last="y")

    assert type(one) is Plainer
    assert (one.first, one.last) == (1, "y")
    with pytest.raises(FrozenInstanceError):
        one.first = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    "one",
    [
        StoredOutput("io", "place", size_bytes=3, metadata={"rows": 1}),
        Succeeded(StoredOutput("io", "place"), 5),
        Job(id=1, asset="a", partition=None, run_id="r", executor="sync"),
        RunInfo(id="r", kind="backfill"),
        RunSpec(kind="backfill", selection="a", targets=[("a", "")]),
        PlacingOptions(queue="q"),
    ],
    ids=lambda one: type(one).__name__,
)
def test_what_every_step_makes_is_copied_and_pickled(one: object) -> None:
    assert type(one).__init__.__code__.co_filename == "<string>"
    for same in (copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one)), replace(one)):  # type: ignore[type-var]
        assert same == one
        assert type(same) is type(one)
        assert repr(same) == repr(one)
    with pytest.raises(FrozenInstanceError):
        one.__setattr__(next(iter(one.__slots__)), None)  # type: ignore[attr-defined]


def test_what_is_no_frozen_dataclass_with_slots_of_its_own_is_refused() -> None:
    @dataclass(frozen=True)
    class WithDict:
        a: int = 0

    @dataclass(slots=True)
    class Open:
        a: int = 0

    @dataclass(frozen=True, slots=True)
    class More(StoredOutput):
        b: int = 0

    for refused in (WithDict, Open, More, int):
        with pytest.raises(TypeError, match="no frozen dataclass with slots"):
            quickly_made(refused)
