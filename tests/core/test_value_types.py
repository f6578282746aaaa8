"""Objects of declared classes come back as they were, from every kind of storage."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import functools
import importlib
from collections import namedtuple
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, TypeVar

import pytest

from flowstone import FlowStone, asset
from flowstone.core.value_types import ValueTypes
from flowstone.errors import SerializationError
from flowstone.io import FilesystemIO

T = TypeVar("T")


class Colour(enum.Enum):
    RED = 1
    BLUE = (2, "x")


class Level(enum.IntEnum):
    LOW = 1


class Word(enum.StrEnum):
    YES = "yes"


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: float
    colour: Colour | None = None


@dataclasses.dataclass
class Line:
    points: list[Point]
    name: str = "line"
    at: dt.date | None = None
    length: float = dataclasses.field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self.length += len(self.points)


@dataclasses.dataclass(frozen=True, slots=True)
class Order:
    id: int
    lines: dict[str, Line]
    price: Decimal = Decimal("1.50")
    tree: Order | None = None


@dataclasses.dataclass
class Page(Generic[T]):  # noqa: UP046 - as code of others has it
    items: list[T]


@dataclasses.dataclass
class Shape:
    area: float

    @functools.cached_property
    def double(self) -> float:
        return 2 * self.area


class Round(Shape):
    pass


Ids = NewType("Ids", Order)
type Orders = list[Annotated[Order, "paid"]]
Old = namedtuple("Old", "a b")

LINE = Line([Point(1.0, Colour.RED), Point(-0.0)], at=dt.date(2024, 1, 1))
ORDER = Order(1, {"a": LINE}, tree=Order(2, {}))


def returning(kind: Any, value: object) -> Callable[[], object]:
    def made() -> object:
        return value

    made.__annotations__["return"] = kind
    return made


def through_files(kind: Any, value: object, directory: Path) -> object:
    flow = FlowStone.for_testing(
        [asset(name="made", io="files")(returning(kind, value))],
        io={"files": FilesystemIO(directory, name="files")},
    )
    flow.materialize("made")
    return flow.load("made")


def same(left: Any, right: Any) -> bool:
    return type(left) is type(right) and repr(left) == repr(right) and left == right


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Colour, Colour.BLUE),
        (Level, Level.LOW),
        (Word, Word.YES),
        (Rights, Rights.READ | Rights.WRITE),
        (Rights, Rights(0)),
        (Point, Point(1.5)),
        (Old, Old(1, (2,))),
        (Line, LINE),
        (Order, ORDER),
        (list[Order], [ORDER, ORDER]),
        (dict[str, Order | None], {"a": ORDER, "b": None}),
        (dict[Colour, int], {Colour.RED: 1}),
        (tuple[Point, ...], (Point(1.0), Point(2.0))),
        (Orders, [ORDER]),
        (Ids, ORDER),
        (Page[Order], Page([ORDER])),
        (Page[Page[Colour]], Page([Page([Colour.RED])])),
        (Literal[Colour.RED] | Colour, Colour.RED),
        (set[Point], {Point(1.0), Point(2.0)}),
        ("list[Order]", [ORDER]),
        (Shape, Shape(2.0)),
        (list[Shape | Round], [Shape(1.0), Round(2.0)]),
        (Any, {"plain": [1, (2,), None]}),
    ],
)
def test_declared_objects_come_back(kind: Any, value: object, tmp_path: Path) -> None:
    assert same(through_files(kind, value, tmp_path), value)


def test_what_was_computed_is_kept_and_not_computed_again(tmp_path: Path) -> None:
    shape = Shape(2.0)
    assert shape.double == 4
    assert same(through_files(Shape, shape, tmp_path), shape)
    line = Line([Point(1.0)])
    line.length = 7.0
    assert through_files(Line, line, tmp_path / "b").length == 7.0  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", [None, Any, int, list[Point], "Nowhere"])
def test_an_object_that_nobody_declared_is_refused_with_the_remedy(kind: Any, tmp_path: Path) -> None:
    with pytest.raises(SerializationError, match=r"return annotation.*-> Order") as caught:
        through_files(kind, {"a": ORDER}, tmp_path)
    assert caught.value.path == '$["a"]'


def test_a_subclass_is_not_its_class(tmp_path: Path) -> None:
    with pytest.raises(SerializationError, match="-> Round"):
        through_files(Shape, Round(1.0), tmp_path)


def test_more_than_fields_is_refused(tmp_path: Path) -> None:
    shape = Shape(1.0)
    shape.note = "extra"  # type: ignore[attr-defined]
    with pytest.raises(SerializationError, match="'note', which is no field"):
        through_files(Shape, shape, tmp_path)


def test_storage_does_not_decide_what_is_built(tmp_path: Path) -> None:
    """Another app, or a value that was tampered with, names a class that no asset of this app declares."""
    manager = FilesystemIO(tmp_path, name="files", durable=False)
    made = asset(name="made", io="files")(returning(Colour, Colour.RED))
    stored = FlowStone.for_testing([made], io={"files": manager}).materialize("made").stored
    assert stored is not None
    other = FlowStone.for_testing([asset(name="other")(returning(Shape, None))], io={"files": manager})
    with pytest.raises(SerializationError, match="no asset of this app declares"):
        other.parts.values.load(stored)
    assert ValueTypes([returning(Point, None)]).find("os:system") is None


def test_a_class_that_changed_says_so(tmp_path: Path) -> None:
    def declare(fields: list[Any]) -> tuple[Any, FlowStone]:
        kind = dataclasses.make_dataclass("Row", fields)
        kind.__module__ = __name__
        made = asset(name="made", io="files")(returning(kind, kind(1)))
        return kind, FlowStone.for_testing([made], io={"files": FilesystemIO(tmp_path, name="files")})

    _, flow = declare([("a", int)])
    stored = flow.materialize("made").stored
    assert stored is not None
    more, flow = declare([("a", int), ("b", int, dataclasses.field(default=5))])
    assert flow.parts.values.load(stored) == more(1, 5)
    _, flow = declare([("c", int)])
    with pytest.raises(SerializationError, match="other fields than when the value was stored: a, c"):
        flow.parts.values.load(stored)


def test_a_class_of_the_main_script_is_known_in_its_workers() -> None:
    kinds = ValueTypes([returning(Point, None)])
    assert kinds.find("__main__:Point") is Point
    assert kinds.find("elsewhere:Point") is None


def test_a_reader_of_an_object_gets_it(tmp_path: Path) -> None:
    @asset(io="files")
    def order() -> Order:
        return ORDER

    @asset(io="files")
    async def colours(order: Order) -> list[Colour]:
        return [point.colour for point in order.lines["a"].points if point.colour]

    flow = FlowStone.for_testing([order, colours], io={"files": FilesystemIO(tmp_path, name="files")})
    assert flow.materialize_all("colours").value == [Colour.RED]


def test_pydantic_models(tmp_path: Path) -> None:
    pytest.importorskip("pydantic")
    models = importlib.import_module("tests.core.pydantic_models")
    inner = models.Inner(when=dt.datetime(2024, 1, 1, tzinfo=dt.UTC), kind="a", more=[1])
    outer = models.Outer(No=1, inner={"a": inner})
    outer._note = 4
    box = models.Box[models.Inner]
    for number, (kind, value) in enumerate(
        [
            (models.Inner, inner),
            (list[models.Outer], [outer]),
            (dict[str, models.Outer], {"x": outer}),
            (models.Outer | None, outer),
            (box, box(content=inner)),
            (models.Rows, models.Rows([inner])),
        ]
    ):
        assert same(through_files(kind, value, tmp_path / str(number)), value)
    again: Any = through_files(models.Outer, outer, tmp_path / "again")
    assert (again.model_fields_set, again._note) == ({"number", "inner"}, 4)
    with pytest.raises(SerializationError, match="-> Inner"):
        through_files(None, [inner], tmp_path / "none")
