"""Finding an executor by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoints, entry_points

from flowstone.errors import ExecutorUnavailableError, UnknownExecutorError
from flowstone.protocols import Executor

ENTRY_POINT_GROUP = "flowstone.executors"


class ExecutorSelector:
    """Makes each executor once, when it is first asked for, and binds it to the app.

    Args:
        factories: executors that the app knows by name.
        bind: called with every new executor.
    """

    def __init__(self, factories: Mapping[str, Callable[[], Executor]], bind: Callable[[Executor], None]) -> None:
        self._factories = dict(factories)
        self._bind = bind
        self._made: dict[str, Executor] = {}
        # objects that were passed to a call: one that wraps another carries its name, but does not take its place
        self._given: dict[str, Executor] = {}

    def get(self, wanted: str | Executor) -> Executor:
        """Return an executor, bound.

        Args:
            wanted: a name, or an executor object.

        Raises:
            UnknownExecutorError: no executor has this name.
            ExecutorUnavailableError: it exists but cannot be made here.
        """
        if not isinstance(wanted, str):
            if self._given.get(wanted.name) is not wanted and self._made.get(wanted.name) is not wanted:
                self._bind(wanted)
                self._given[wanted.name] = wanted
            return wanted
        made = self._made.get(wanted)
        if made is None:
            given = self._given.get(wanted)
            if given is not None and not self._knows(wanted):
                return given
            made = self._make(wanted)
            self._bind(made)
            self._made[wanted] = made
        return made

    def names(self) -> list[str]:
        """Return every name that `get` knows."""
        return sorted({*self._factories, *self._made, *self._given, *(point.name for point in _points())})

    def made(self) -> list[Executor]:
        """Return the executors that were used so far."""
        return [*self._made.values(), *self._given.values()]

    def _knows(self, name: str) -> bool:
        return name in self._factories or any(point.name == name for point in _points())

    def _make(self, name: str) -> Executor:
        factory = self._factories.get(name)
        if factory is not None:
            return factory()
        for point in _points():
            if point.name == name:
                try:
                    executor: Executor = point.load()()
                except Exception as error:
                    raise ExecutorUnavailableError(
                        name,
                        f"its entry point {point.value!r} failed with {type(error).__name__}: {error}",
                        "Check the package that registers it.",
                    ) from error
                return executor
        raise UnknownExecutorError(name, self.names())


def _points() -> EntryPoints:
    return entry_points(group=ENTRY_POINT_GROUP)
