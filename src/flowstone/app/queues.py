"""`flow.queues`: the queues of the fleet."""

from __future__ import annotations

from flowstone.app.async_face import AsyncFlowStone, awaitable
from flowstone.app.wiring import Parts, control_of
from flowstone.core.control import QueueStatus
from flowstone.core.declaring import view
from flowstone.errors import OptionsError, did_you_mean
from flowstone.protocols import Control


@view("flow.queues")
class QueuesView:
    """Pause, resume and resize queues in the whole fleet; needs a database.

    What is set is stored: workers that start later follow it as well.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def list(self) -> list[QueueStatus]:
        """Return the queues that are set or have work."""
        return control_of(self._parts).queues()

    def pause(self, name: str) -> None:
        """Start nothing more of a queue; what runs goes on.

        Raises:
            OptionsError: nobody knows this queue.
        """
        self._known(name).set_queue(name, paused=True)

    def resume(self, name: str) -> None:
        """Go on with a paused queue.

        Raises:
            OptionsError: nobody knows this queue.
        """
        self._known(name).set_queue(name, paused=False)

    def scale(self, name: str, limit: int | None) -> None:
        """Let each worker node run this many steps of a queue at once; takes effect within a second or so.

        Args:
            name: the queue.
            limit: steps at once per node, 1 to 1000; None takes back what was set, so that each worker runs as
                many as it declares.

        Raises:
            OptionsError: the limit is out of range, or nobody knows this queue.
        """
        if limit is None:
            self._known(name).set_queue(name, reset_limit=True)
            return
        if type(limit) is not int or not 1 <= limit <= 1000:
            raise OptionsError(
                f"limit={limit!r}: give a whole number from 1 to 1000; use pause() for none at all."
            )
        self._known(name).set_queue(name, node_limit=limit)

    def _known(self, name: str) -> Control:
        """Return what steers queues; refuse a name that stands for none, which would be stored in silence."""
        control = control_of(self._parts)
        known = {*self._parts.settings.queues, *(asset.queue for asset in self._parts.graph)}
        if name not in known:
            known |= {queue.name for queue in control.queues()} | set(control.served_queues())
        if name not in known:
            raise OptionsError(
                f"There is no queue {name!r}: no asset uses it, no worker serves it, no setting names it."
                f"{did_you_mean(name, known)} Queues: {', '.join(sorted(known))}."
            )
        return control


class AsyncQueuesView(AsyncFlowStone):
    """`flow.aio.queues`: the verbs of `flow.queues`, awaitable."""

    list = awaitable(QueuesView.list)
    pause = awaitable(QueuesView.pause)
    resume = awaitable(QueuesView.resume)
    scale = awaitable(QueuesView.scale)
