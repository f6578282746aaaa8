from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from unittest.mock import Mock

import pytest

from flowstone import FlowStone
from flowstone.core.asset import asset
from flowstone.engine.resources import ResourcePool
from flowstone.errors import DefinitionError, ResourceError


def test_resources_open_at_first_use_and_close_in_reverse() -> None:
    events: list[str] = []

    def managed(name: str):
        @contextmanager
        def manager() -> Iterator[str]:
            events.append(f"open {name}")
            yield name
            events.append(f"close {name}")

        return manager

    pool = ResourcePool({"a": managed("a"), "b": managed("b"), "never": managed("never"), "plain": 5})
    assert events == []
    assert (pool.get("a"), pool.get("b"), pool.get("a"), pool.get("plain")) == ("a", "b", "a", 5)
    pool.close()
    pool.close()
    assert events == ["open a", "open b", "close b", "close a"]
    assert pool.get("a") == "a"
    pool.close()
    assert events[-2:] == ["open a", "close a"]


def test_many_threads_open_once() -> None:
    opened: list[int] = []
    start = threading.Barrier(8)
    pool = ResourcePool({"slow": lambda: opened.append(1) or object()})
    found: list[object] = []

    def use() -> None:
        start.wait()
        found.append(pool.get("slow"))

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (len(opened), len(set(map(id, found)))) == (1, 1)


def test_a_failed_opening_is_explained_and_tried_again() -> None:
    tries: list[int] = []

    def flaky() -> str:
        tries.append(1)
        if len(tries) == 1:
            raise ConnectionError("down")
        return "up"

    pool = ResourcePool({"db": flaky})
    with pytest.raises(ResourceError, match="'db' could not be opened: ConnectionError: down") as caught:
        pool.get("db")
    assert isinstance(caught.value.__cause__, ConnectionError)
    assert pool.get("db") == "up"


def test_a_resource_may_use_another() -> None:
    pool = ResourcePool({"url": lambda: "u", "client": lambda: f"client of {pool.get('url')}"})
    assert pool.get("client") == "client of u"


def test_unknown_resources_are_found_when_the_app_is_built() -> None:
    pool = ResourcePool({"database": 1})

    @asset(requires=["databse"])
    def rows(): ...

    with pytest.raises(DefinitionError, match=r"'databse', which.* Did you mean 'database'") as caught:
        pool.check([rows])
    assert rows.where in str(caught.value)
    with pytest.raises(ResourceError, match="Did you mean 'database'"):
        pool.get("databse")


def test_an_asset_gets_only_what_it_requires() -> None:
    pool = ResourcePool({"a": 1, "b": 2})

    @asset(requires=["a"])
    def one(context): ...

    @asset
    def none(context): ...

    assert dict(pool.for_asset(one)) == {"a": 1}
    with pytest.raises(ResourceError, match=r"requires=\['a'\]"):
        pool.for_asset(none)["a"]


def test_resources_need_others_which_are_opened_before_and_closed_after_them() -> None:
    """A chain, a shared one opened once, a default value that is no resource."""
    events: list[str] = []

    @contextmanager
    def settings() -> Iterator[dict[str, str]]:
        events.append("open settings")
        yield {"url": "db://x"}
        events.append("close settings")

    @contextmanager
    def client(settings: dict[str, str], *, retries: int = 3) -> Iterator[str]:
        events.append("open client")
        yield f"{settings['url']} {retries}"
        events.append("close client")

    pool = ResourcePool(
        {"shop": lambda client, settings: (client, settings), "client": client, "settings": settings}
    )
    pool.check([])
    assert pool.get("shop") == ("db://x 3", {"url": "db://x"})
    pool.close()
    assert events == ["open settings", "open client", "close client", "close settings"]


@pytest.mark.parametrize(
    ("declared", "says"),
    [
        ({"a": lambda b: b}, r"'a' needs a resource 'b'.*not declared"),
        ({"client": lambda setings: 1, "settings": 1}, r"Did you mean 'settings'"),
        ({"a": lambda a: a}, r"'a' -> 'a' need each other"),
        ({"a": lambda b: b, "b": lambda c: c, "c": lambda a: a}, r"'a' -> 'b' -> 'c' -> 'a'"),
    ],
)
def test_needs_that_cannot_be_met_are_refused_when_the_app_is_made(declared: dict[str, object], says: str) -> None:
    with pytest.raises(DefinitionError, match=says):
        FlowStone.for_testing([], resources=declared)


def test_callables_of_any_kind_are_resources() -> None:
    pool = ResourcePool({"mock": Mock(return_value=1), "dict": dict, "partial": partial(int, "5"), "print": print})
    pool.check([])
    assert (pool.get("mock"), pool.get("dict"), pool.get("partial")) == (1, {}, 5)


def test_a_needed_resource_that_fails_says_which() -> None:
    pool = ResourcePool({"a": lambda b: b, "b": lambda: 1 / 0})
    with pytest.raises(ResourceError, match="'b' could not be opened: ZeroDivisionError"):
        pool.get("a")
