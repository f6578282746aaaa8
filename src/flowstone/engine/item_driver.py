"""Runs the items of a scatter in this process, while its step rests."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import partial

from flowstone.core.job import Job
from flowstone.core.partition import decode_partition
from flowstone.core.state import State
from flowstone.core.step import StepRecord
from flowstone.engine.driver import StepThreads
from flowstone.protocols import Store

_PAGE = 500


class ItemDriver:
    """Drives runs of items.

    Args:
        store: where they are recorded.
        cancel: sets the token of a step that runs in this process.
    """

    def __init__(self, store: Store, cancel: Callable[[int], bool]) -> None:
        self._store = store
        self._cancel = cancel

    def drive(
        self, step_id: int, *, room: AbstractContextManager[object] | None, run: Callable[[Job], object]
    ) -> bool:
        """Run the items of a step that have not started.

        Args:
            step_id: the step that scattered them.
            room: how many run at once, in all drives that share it; None for one after the other, right here.
            run: runs an item to its end.

        Returns:
            Whether there were any.
        """
        record = self._store.scatters.of_steps([step_id]).get(step_id)
        if record is None or record.is_open or record.is_over:
            return False
        run_record = self._store.catalog.run(record.run_id)
        width = (run_record.max_concurrency if run_record else None) or 1
        if room is None or width == 1:
            return self._one_by_one(record.run_id, run)
        return self._side_by_side(record.run_id, width, room, run)

    def _one_by_one(self, run_id: str, run: Callable[[Job], object]) -> bool:
        found = False
        while page := self._pending(run_id):
            found = True
            for item in page:
                self._run(item, run)
        return found

    def _side_by_side(
        self, run_id: str, width: int, room: AbstractContextManager[object], run: Callable[[Job], object]
    ) -> bool:
        def one(item: StepRecord) -> None:
            with room:
                self._run(item, run)

        found = False
        threads = StepThreads(width, name="flowstone-items")
        try:
            while page := self._pending(run_id):
                found = True
                for item in page:
                    threads.submit(partial(one, item), item.id)
                left = len(page)
                while left:
                    left -= len(threads.ended())
        finally:
            threads.close()
        return found

    def _pending(self, run_id: str) -> list[StepRecord]:
        return self._store.catalog.steps(run_id, state=State.PENDING, limit=_PAGE)

    def _run(self, item: StepRecord, run: Callable[[Job], object]) -> None:
        try:
            run(_job(item))
        except KeyboardInterrupt:
            if threading.current_thread() is threading.main_thread():
                raise
        except BaseException:  # noqa: BLE001 - recorded with the item; the others go on
            # perhaps it was one failure too many: what runs in this process as well is signalled
            with suppress(Exception):
                for other in self._store.catalog.steps(item.run_id, state=State.CANCELLING, limit=_PAGE):
                    self._cancel(other.id)


def _job(item: StepRecord) -> Job:
    return Job(
        id=item.id,
        asset=item.asset,
        partition=decode_partition(item.partition),
        run_id=item.run_id,
        executor=item.executor,
        priority=item.priority,
    )
