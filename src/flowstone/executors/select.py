"""Finding an executor by name, and reading what it offers beyond running jobs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from importlib.metadata import EntryPoints, entry_points

from flowstone.core.capability import Capability
from flowstone.core.declaring import no_such_part, shown, whole_number
from flowstone.core.limits import Limit, parse_limits
from flowstone.errors import (
    ExecutorUnavailableError,
    OptionsError,
    UnknownExecutorError,
    did_you_mean,
    join_names,
)
from flowstone.protocols import Executor, LimitsStarts, RunsConcurrently

ENTRY_POINT_GROUP = "flowstone.executors"
_MEMBERS = ("name", "capabilities", "bind", "execute", "schedule")
_DEFAULT_CONCURRENCY = 32
_MAX_CONCURRENCY = 2**31 - 1


class ExecutorSelector:
    """Makes each executor once, when it is first asked for, and binds it to the app.

    Args:
        factories: executors that the app knows by name.
        bind: called with every new executor.
        declared: what those declare that may not be made here.
    """

    def __init__(
        self,
        factories: Mapping[str, Callable[[], Executor]],
        bind: Callable[[Executor], None],
        *,
        declared: Mapping[str, frozenset[Capability]] | None = None,
    ) -> None:
        self._factories = dict(factories)
        self._declared = dict(declared or {})
        self._bind = bind
        self._made: dict[str, Executor] = {}
        # objects that were passed to a call: one that wraps another carries its name, but does not take its place
        self._given: dict[str, Executor] = {}

    def get(self, choice: str | Executor) -> Executor:
        """Return an executor, bound.

        Args:
            requested: a name, or an executor object.

        Raises:
            UnknownExecutorError: no executor has this name.
            ExecutorUnavailableError: it exists but cannot be made here.
            OptionsError: it is neither a name nor an executor.
        """
        if not isinstance(choice, str):
            _refuse_what_is_none("executor", choice)
            if self._given.get(choice.name) is not choice and self._made.get(choice.name) is not choice:
                self._bind(choice)
                self._given[choice.name] = choice
            return choice
        made = self._made.get(choice)
        if made is None:
            given = self._given.get(choice)
            if given is not None and not self._knows(choice):
                return given
            made = self._make(choice)
            self._bind(made)
            self._made[choice] = made
        return made

    def names(self) -> list[str]:
        """Return every name that `get` knows."""
        return sorted({*self.own_names(), *(point.name for point in _points())})

    def own_names(self) -> list[str]:
        """Return those of them for which no installed package has to be looked at, which takes 15 ms."""
        return sorted({*self._factories, *self._made, *self._given})

    def capabilities(self, choice: str | Executor) -> frozenset[Capability]:
        """Return what an executor declares; of those of the app it is known although one cannot be made here."""
        if isinstance(choice, str) and choice in self._declared and choice not in self._made:
            return self._declared[choice]
        return frozenset(self.get(choice).capabilities)

    def made(self) -> list[Executor]:
        """Return the executors that were used so far."""
        return [*self._made.values(), *self._given.values()]

    def _knows(self, name: str) -> bool:
        return name in self._factories or any(point.name == name for point in _points())

    def _make(self, name: str) -> Executor:
        factory = self._factories.get(name)
        if factory is not None:
            executor = factory()
            _refuse_what_is_none(f"FlowStone(executors={{{name!r}: ...}})", executor)
            return executor
        for point in _points():
            if point.name == name:
                try:
                    loaded: Executor = point.load()()
                    _refuse_what_is_none(f"the entry point {point.value!r}", loaded)
                except Exception as error:
                    raise ExecutorUnavailableError(
                        name,
                        f"its entry point {point.value!r} failed with {type(error).__name__}: {error}",
                        "Check the package that registers it.",
                    ) from error
                return loaded
        raise UnknownExecutorError(name, self.names())


def _refuse_what_is_none(where: str, choice: object) -> None:
    """Refuse what is no executor: a class instead of an object, an object without the methods.

    Raises:
        OptionsError: says what is missing.
    """
    if problem := no_such_part("executor", choice, _MEMBERS):
        raise OptionsError(
            f"{where}: {problem}. Give a name such as 'sync', or an object with name, capabilities, bind, execute "
            "and schedule."
        )
    if not isinstance(choice.name, str) or not choice.name:  # type: ignore[attr-defined]
        raise OptionsError(f"{where}: the name of {choice!r} must be text.")
    capabilities = choice.capabilities  # type: ignore[attr-defined]
    known = {capability.value for capability in Capability}
    unknown = [one for one in capabilities if one not in known] if isinstance(capabilities, Collection) else None
    if unknown is None or isinstance(capabilities, str):
        raise OptionsError(f"{where}: capabilities={capabilities!r}: give a frozenset of Capability.")
    if unknown:
        raise OptionsError(
            f"{where}: there is no capability {unknown[0]!r}.{did_you_mean(str(unknown[0]), known)} "
            f"Capabilities: {join_names(sorted(known), limit=20)}."
        )


def limits_of(executor: Executor) -> dict[str, Limit]:
    """Return the limits that an executor puts on every step that is placed through it.

    Raises:
        OptionsError: they are no mapping of names to limits.
        DefinitionError: one of them cannot be understood.
    """
    limits: object = executor.limits if isinstance(executor, LimitsStarts) else None
    if limits is None:
        return {}
    if not isinstance(limits, Mapping) or not all(isinstance(name, str) for name in limits):
        raise OptionsError(
            f"The executor {executor.name!r} has limits={shown(limits)}: give a mapping of names to limits, such "
            'as {"service": Rate(10, "minute")}.'
        )
    return parse_limits(limits)


def concurrency_of(executor: Executor) -> int:
    """Return how many steps at once a concurrent executor is handed.

    Raises:
        OptionsError: what it says is no number from 1 on.
    """
    if not isinstance(executor, RunsConcurrently):
        return _DEFAULT_CONCURRENCY
    number = whole_number(executor.max_concurrency, minimum=1, maximum=_MAX_CONCURRENCY)
    if number is None:
        raise OptionsError(
            f"The executor {executor.name!r} has max_concurrency={shown(executor.max_concurrency)}: give a whole "
            "number from 1 on."
        )
    return number


def _points() -> EntryPoints:
    return entry_points(group=ENTRY_POINT_GROUP)
