"""What a config may be: by declared type, through JSON and back, and refused where that cannot be."""

from __future__ import annotations

import dataclasses
import enum
import json
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NewType, NotRequired, TypedDict
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstone.core.config_type import CommandText, ConfigError, config_schema
from flowstone.core.run_details import RunDetails, RunInfo

pydantic = pytest.importorskip("pydantic")

KEY = UUID(int=7)
Rows = NewType("Rows", int)
type Names = list[str]


class Size(enum.Enum):
    SMALL = 1
    LARGE = 2


@dataclasses.dataclass
class Tree:
    name: str
    children: list[Tree] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Everything:
    text: str = "a"
    flag: bool = False
    number: int = 1
    ratio: float = 0.5
    day: date = date(2024, 1, 31)
    at: datetime = datetime(2024, 1, 31, 12, tzinfo=UTC)
    clock: time = time(12, 30)
    delay: timedelta = timedelta(seconds=1.5)
    amount: Decimal = Decimal("1.10")
    where: Path = Path("a/b")
    key: UUID = KEY
    size: Size = Size.LARGE
    mode: Literal["fast", 3] = 3
    maybe: int | None = None
    either: int | str = "x"
    items: list[int] = dataclasses.field(default_factory=lambda: [1])
    pair: tuple[int, str] = (1, "a")
    many: tuple[float, ...] = ()
    unique: frozenset[str] = frozenset({"b", "a"})
    keys: dict[int, list[date]] = dataclasses.field(default_factory=lambda: {1: [date(2024, 1, 1)]})
    rows: Rows = Rows(5)
    names: Names = dataclasses.field(default_factory=list)
    tree: Tree = dataclasses.field(default_factory=lambda: Tree("root", [Tree("leaf")]))
    anything: Any = None
    marked: Annotated[int, "positive"] = 1


class Region(TypedDict):
    region: str
    zone: NotRequired[int]


class Cat(pydantic.BaseModel):
    kind: Literal["cat"] = "cat"
    meows: int = 1


class Dog(pydantic.BaseModel):
    kind: Literal["dog"] = "dog"
    barks: float = 0.5


class Model(pydantic.BaseModel):
    pet: Annotated[Cat | Dog, pydantic.Field(discriminator="kind")] = Dog()
    size: Size = Size.SMALL
    day: date | None = None
    pin: pydantic.SecretStr = pydantic.SecretStr("0000")
    url: pydantic.HttpUrl | None = None
    renamed: int = pydantic.Field(default=1, alias="other")
    label: str = "x"

    @pydantic.computed_field
    def double(self) -> int:
        return 2 * self.renamed


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True, extra="forbid", frozen=True)
    day: date = date(2024, 1, 1)
    rows: int = 1


def again(declared: Any, given: Any) -> Any:
    """Return what a config is after the way that it travels."""
    schema = config_schema(declared)
    document = schema.document(given)
    return schema.build(json.loads(json.dumps(document, allow_nan=False)))


@pytest.mark.parametrize(
    ("declared", "given", "expected"),
    [
        (Everything, {}, Everything()),
        (Everything, Everything(number=3, keys={}), Everything(number=3, keys={})),
        (Everything, {"items": (1, 2), "keys": {"4": []}}, Everything(items=[1, 2], keys={4: []})),
        (Everything, {"day": date(2020, 2, 29), "size": 1}, Everything(day=date(2020, 2, 29), size=Size.SMALL)),
        (Everything, {"ratio": 2, "either": 3, "size": "SMALL"}, Everything(ratio=2.0, either=3, size=Size.SMALL)),
        (Region, {"region": "eu"}, {"region": "eu"}),
        (dict, {"a": [1, {"b": None}]}, {"a": [1, {"b": None}]}),
        (dict[str, int], {"a": 1}, {"a": 1}),
        (Model, {}, Model()),
        (Model, Model(pet=Cat(meows=3), other=4), Model(pet=Cat(meows=3), other=4)),
        (Model, {"pet": {"kind": "cat"}, "other": 7, "pin": "1234"}, Model(pet=Cat(), other=7, pin="1234")),
        (Model, {"url": "https://db.example/x"}, Model(url="https://db.example/x")),
        (Strict, {"day": "2024-02-01"}, Strict(day=date(2024, 2, 1))),
        (Strict, Strict(rows=2), Strict(rows=2)),
    ],
)
def test_a_config_comes_back_as_it_was(declared: Any, given: Any, expected: Any) -> None:
    found = again(declared, given)

    assert found == expected
    assert type(found) is type(expected)
    assert again(declared, found) == expected


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text("ab\n"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("xyz"), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text("abc", min_size=1), json_values, max_size=4))
def test_any_json_object_comes_back(document: dict[str, Any]) -> None:
    assert again(dict, document) == document


@given(st.one_of(json_values, st.floats(), st.dates(), st.binary(), st.text(), st.builds(object)))
def test_whatever_is_given_fits_or_is_refused(value: Any) -> None:
    fields = ((Everything, "number"), (Everything, "keys"), (Model, "pet"), (Cat, "meows"), (dict, "a"))
    for declared, name in fields:
        with suppress(ConfigError):  # nothing else is ever raised
            again(declared, {name: value})


@pytest.mark.parametrize(
    ("declared", "given", "match"),
    [
        (Everything, {"flag": 1}, "flag: give true or false, not 1"),
        (Everything, {"number": True}, "number: give a whole number, not True"),
        (Everything, {"day": datetime(2024, 1, 1)}, "day: give a day"),
        (
            Everything,
            {"tree": {"name": "a", "children": [{"nam": "b"}]}},
            r"tree.children.0.nam: .*Did you mean 'name'",
        ),
        (Everything, {"mode": "fats"}, "give one of 'fast', 3, not 'fats'. Did you mean 'fast'"),
        (Everything, {"pair": [1]}, "pair: give a list of 2 values"),
        (Everything, {"amount": "nan"}, "amount: give a decimal number"),
        (Everything, {"text": "a\ud800"}, "lone surrogates"),
        (Region, {}, "region: it is missing"),
        (Region, {"region": "eu", "zon": 1}, "zon: .*Did you mean 'zone'"),
        (Model, {"pet": {"kind": "fish"}}, "pet"),
        (Model, {"labl": "x"}, "labl: .*Did you mean 'label'"),
        (Strict, {"rows": "2"}, "rows"),
        (dict, {"a": {1.5: 2}}, "is not text"),
        (dict, [], "give an object"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(declared: Any, given: Any, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        config_schema(declared).document(given)


def test_secrets_do_not_show() -> None:
    with pytest.raises(ConfigError) as caught:
        config_schema(Everything).document({"password_rows": "hunter2"})
    assert "hunter2" not in str(caught.value)
    assert config_schema(Model).secrets == ("pin",)
    details = RunDetails(
        config={"a": {"pin": "1234", "api_key": "hunter2", "max_tokens": 5, "list": [{"dbPassword": "hunter2"}]}},
        metadata={"at": "postgresql://ann:hunter2@db/x", "token": "hunter2"},
        hooks=("h",),
        hooks_config={"h": {"secret": ["hunter2"]}},
        secrets=(("a", "pin"),),
    )
    run = RunInfo(id="r1", details=details)
    assert "hunter2" not in repr(run)
    assert "1234" not in repr(run)
    assert details.masked().config["a"]["max_tokens"] == 5
    assert RunDetails.from_json(json.loads(json.dumps(details.to_json()))) == details


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [("3", "number", 3), ("3", "text", "3"), ("true", "flag", True), ("null", "maybe", None), ("2", "mode", None)],
)
def test_texts_of_the_command_line(text: str, name: str, expected: Any) -> None:
    schema = config_schema(Everything)
    if expected is None and name == "mode":
        with pytest.raises(ConfigError, match="give one of"):
            schema.document({name: CommandText(text)})
        return
    assert getattr(schema.build(schema.document({name: CommandText(text)})), name) == expected
    for field, value in (("label", "7"), ("other", 7)):
        assert (
            config_schema(Model)
            .build(config_schema(Model).document({field: CommandText("7")}))
            .model_dump(by_alias=True)[field]
            == value
        )


@pytest.mark.parametrize("hint", [bytes, complex, Path | object.__class__, list[bytes]])
def test_a_type_without_json_is_refused_when_declared(hint: Any) -> None:
    declared = dataclasses.make_dataclass("Declared", [("field", hint)])
    with pytest.raises(TypeError, match="the field 'field' has the type"):
        config_schema(declared)
