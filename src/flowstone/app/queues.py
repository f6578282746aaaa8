"""`flow.queues`: the queues of the fleet."""

from __future__ import annotations

from flowstone.app.wiring import Parts, control_of
from flowstone.core.control import QueueStatus
from flowstone.errors import OptionsError


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
        """Start nothing more of a queue; what runs goes on."""
        control_of(self._parts).set_queue(name, paused=True)

    def resume(self, name: str) -> None:
        """Go on with a paused queue."""
        control_of(self._parts).set_queue(name, paused=False)

    def scale(self, name: str, limit: int) -> None:
        """Let each worker node run this many steps of a queue at once; takes effect within a second or so.

        Args:
            name: the queue.
            limit: steps at once per node, 1 to 1000.

        Raises:
            OptionsError: the limit is out of range.
        """
        if type(limit) is not int or not 1 <= limit <= 1000:
            raise OptionsError(
                f"limit={limit!r}: give a whole number from 1 to 1000; use pause() for none at all."
            )
        control_of(self._parts).set_queue(name, node_limit=limit)
