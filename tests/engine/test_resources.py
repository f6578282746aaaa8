from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

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
