"""`flow.executors`: what steps can be run by."""

from __future__ import annotations

from flowstone.app.async_face import AsyncFlowStone, awaitable
from flowstone.app.placement import Placement
from flowstone.app.wiring import Parts
from flowstone.core.capability import Capability
from flowstone.core.declaring import view
from flowstone.errors import FlowStoneError
from flowstone.protocols import Executor


@view("flow.executors")
class ExecutorsView:
    """The executors of an app, and what each declares.

    Example:
        >>> from flowstone import FlowStone
        >>> flow = FlowStone([])
        >>> flow.executors.names()
        ['async', 'oban', 'serial', 'sync']
        >>> "retry" in flow.executors.capabilities("sync")
        True
    """

    def __init__(self, parts: Parts, placement: Placement) -> None:
        self._parts = parts
        self._placement = placement

    def names(self) -> list[str]:
        """Return every name that `executor=` takes, besides `auto`."""
        return self._parts.executors.names()

    def capabilities(self, executor: str | Executor = "auto") -> frozenset[Capability]:
        """Return what an executor declares beyond running a job now and placing it.

        Args:
            executor: a name, an executor object, or `auto` for the one that is used when nobody names one. Of
                `oban` it is known without a database too.

        Raises:
            UnknownExecutorError: no executor has this name.
            ExecutorUnavailableError: one of a package that cannot be loaded.
        """
        return self._parts.executors.capabilities(self._placement.chosen(executor))

    def default(self) -> str:
        """Return the name of the executor that is used when nobody names one."""
        chosen = self._placement.chosen("auto")
        return chosen if isinstance(chosen, str) else chosen.name

    def problem(self, executor: str) -> str | None:
        """Return why an executor cannot be used here; None when it can."""
        try:
            self._parts.executors.get(executor)
        except FlowStoneError as error:
            return str(error)
        return None


class AsyncExecutorsView(AsyncFlowStone):
    """`flow.aio.executors`: the verbs of `flow.executors`, awaitable."""

    names = awaitable(ExecutorsView.names)
    capabilities = awaitable(ExecutorsView.capabilities)
    default = awaitable(ExecutorsView.default)
    problem = awaitable(ExecutorsView.problem)
