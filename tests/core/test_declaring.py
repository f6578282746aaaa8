from __future__ import annotations

import functools
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from flowstone import AssetContext, FlowStone, asset, check, dep, sensor
from flowstone.core.declaring import duration
from flowstone.errors import DefinitionError, UnknownOptionError


@asset
def numbers() -> list[int]:
    return [1, 2, 3]


def leaving_attributes(function: Any) -> Any:
    """What tenacity, click and mock do."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    wrapped.__dict__.update(retry=object(), name="other", tags=None, function=None, dependencies=(), asset="x")
    wrapped.__dict__.update(every_seconds=0, severity=None, hidden=True)
    return wrapped


def test_attributes_of_functions_never_replace_options() -> None:
    made = (
        asset(leaving_attributes(lambda: 1))
        if False
        else asset(name="made")(leaving_attributes(lambda numbers: 1))
    )
    assert (made.retry, made.name, made.tags, made.hidden) == (None, "made", frozenset(), False)
    assert [one.asset for one in made.dependencies] == ["numbers"]
    checked = check("made", name="c")(leaving_attributes(lambda made: True))
    assert (checked.asset, checked.name, checked.severity.value) == ("made", "c", "error")
    sensed = sensor(name="s")(leaving_attributes(lambda: None))
    assert (sensed.name, sensed.every_seconds) == ("s", 30.0)


class Later:
    async def __call__(self, numbers: list[int]) -> int:
        return sum(numbers)

    async def method(self, numbers: list[int]) -> int:
        return sum(numbers)

    @classmethod
    def of_class(cls, numbers: list[int]) -> int:
        return sum(numbers)

    @staticmethod
    def static(numbers: list[int]) -> int:
        return sum(numbers)


async def later(numbers: list[int], factor: int = 1) -> int:
    return factor * sum(numbers)


def hiding(function: Any) -> Any:
    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapped


@pytest.mark.parametrize(
    "function",
    [
        Later(),
        Later().method,
        Later.of_class,
        Later.static,
        vars(Later)["static"],
        functools.partial(later, factor=1),
        functools.partial(functools.partial(later), factor=1),
        hiding(later),
        hiding(hiding(Later().method)),
        lambda numbers, factor=2: factor * sum(numbers) // factor,
    ],
    ids=lambda one: type(one).__name__,
)
@pytest.mark.parametrize("timeout", [None, 60])
def test_every_kind_of_callable_works(function: Any, timeout: float | None) -> None:
    made = asset(name="made", timeout=timeout)(function)
    executor = "async" if timeout else "sync"
    assert FlowStone.for_testing([numbers, made]).materialize_all("made", executor=executor).value == 6


@pytest.mark.parametrize(
    ("function", "remedy"),
    [
        (lambda numbers, /: 1, "Take the `/` out of the signature"),
        (lambda *args, **kwargs: 1, "functools.wraps"),
        (lambda self, numbers: 1, "as of a method"),
        (lambda numbers, context: 1, "the parameter 'context' is number 2; it must be the first one"),
        (lambda ctx, numbers: 1, "the first one and is called 'context'"),
        (lambda _: 1, "the first one and is called 'context'"),
        (vars(Later)["of_class"], "Class.method"),
        (5, "which is no function"),
        (max, "wrap it in a function"),
    ],
)
def test_what_cannot_be_called_is_refused_with_the_remedy(function: Any, remedy: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        asset(name="made")(function)
    assert remedy in str(caught.value)


def annotated(mine: AssetContext, numbers: list[int]) -> int:
    return 1


def test_a_context_under_another_name_is_refused_unless_it_is_meant() -> None:
    with pytest.raises(DefinitionError, match="'mine' would be an input"):
        asset(annotated)
    assert asset(name="a", deps={"ctx": numbers})(lambda ctx: ctx).dependencies[0].asset == "numbers"


def test_a_partial_needs_a_name_and_keeps_the_docstring() -> None:
    with pytest.raises(DefinitionError, match=r"a partial.*give name="):
        asset(functools.partial(later))
    assert "Create a new" not in asset(name="a")(functools.partial(later)).description


@pytest.mark.parametrize(
    "options",
    [
        {"requires": "db"},
        {"requires": ["db", ""]},
        {"requires": [5]},
        {"requires": 5},
        {"tags": "raw"},
        {"tags": {"a": 1}},
        {"tags": b"raw"},
        {"routes": "x"},
        {"deps": numbers},
        {"deps": 5},
        {"deps": [5]},
        {"deps": {5: "a"}},
        {"deps": ["a", None]},
        {"concurrency": 4},
        {"concurrency": {"": 4}},
        {"concurrency": {"a": True}},
        {"code_version": 2},
        {"code_version": "a\x00"},
        {"group": 5},
        {"description": 5},
        {"priority": True},
        {"priority": 4.0},
        {"priority": [1]},
        {"isolation": None},
        {"isolation": np.array([1, 2])},
        {"timeout": True},
        {"timeout": float("inf")},
        {"timeout": timedelta(0)},
        {"queue": "a\x00"},
        {"retry": {"max_attempts": 3}},
        {"name": 5},
        {"name": "a\ud800"},
        {"priorty": 1},
    ],
    ids=lambda one: next(iter(one)),
)
def test_options_that_cannot_work(options: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError) as caught:
        asset(**{"name": "made", **options})(lambda: 1)
    assert next(iter(options)).rstrip("s") in str(caught.value) or "name" in options


def test_misspelt_options_get_a_suggestion() -> None:
    with pytest.raises(UnknownOptionError, match=r"no option 'priorty'. Did you mean 'priority'\?"):
        asset(priorty=1)(lambda: 1)  # type: ignore[call-overload]
    with pytest.raises(UnknownOptionError, match=r"no option 'blockng'. Did you mean 'blocking'\?"):
        check("made", blockng=True)  # type: ignore[call-arg]


def test_lists_are_read_once_and_in_one_order() -> None:
    made = asset(
        name="made", requires=(one for one in ["b", "a", "b"]), tags=iter(["x"]), deps={"q", "p"}, routes=[numbers]
    )(lambda: 1)
    assert (made.requires, made.tags, made.routes) == (("b", "a"), frozenset({"x"}), ("numbers",))
    assert [one.asset for one in made.dependencies] == ["p", "q"]


@pytest.mark.parametrize(
    "arguments", [{"upstream": 5}, {"upstream": "a", "mapping": 5}, {"upstream": "a", "optional": 1}]
)
def test_dependencies_that_cannot_work(arguments: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match="dep\\("):
        dep(**arguments)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(np.int64(3), 3.0), (np.float32(0.5), 0.5), (timedelta(minutes=1), 60.0), (True, None), ("3", None)],
)
def test_durations(value: object, seconds: float | None) -> None:
    assert duration(value) == seconds
