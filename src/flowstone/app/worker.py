"""Running a worker node for an app."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NoReturn

from flowstone import telemetry
from flowstone.app.flow import FlowStone
from flowstone.config import DEFAULT_QUEUES
from flowstone.engine.automation.loop import AutomationLoop
from flowstone.engine.committer import GroupCommitter
from flowstone.engine.work import NodeWork
from flowstone.errors import ExecutorUnavailableError
from flowstone.executors.oban.node import Node
from flowstone.stores.postgres.heartbeat import Heartbeat
from flowstone.stores.postgres.not_begun import NotBegunBoard
from flowstone.stores.postgres.store import PostgresStore

log = logging.getLogger("flowstone.worker")

_FLUSH_SECONDS = 20.0
_SENSORS = "sensors"


def serve(
    flow: FlowStone,
    *,
    queues: Mapping[str, int] | None = None,
    name: str | None = None,
    grace_seconds: float | None = None,
    on_ready: Callable[[], None] | None = None,
) -> int:
    """Run a worker node in this process until SIGTERM or SIGINT, then return an exit code.

    The first signal stops taking work, gives running steps the grace, and hands the rest back with their
    attempts. A second one leaves at once, and others take over.

    Args:
        flow: the app whose assets this node runs.
        queues: queue name to steps at once; the settings' by default.
        name: name of this node for people, in place of the host's.
        grace_seconds: how long running steps may finish; the settings' by default.
        on_ready: told when the node takes work.

    Returns:
        0 when everything ended in order.

    Raises:
        ExecutorUnavailableError: the app has no database.
    """
    store = _store(flow)
    limits = queues or flow.settings.queues
    board = NotBegunBoard()
    heartbeat = _heartbeat(flow, store, name, limits, board)
    committer = GroupCommitter(store.ledger.commit)
    node = _node(flow, store, committer, heartbeat, limits, grace_seconds, board)
    automations = _automations(flow, store, limits)
    with _events(heartbeat, limits), _background(flow, committer):
        automations.start()
        all_ended = _run(node, on_ready, automations)
        all_ended = automations.stop() and all_ended
    heartbeat.stop()
    flow.close()
    return 0 if all_ended else _leave_threads_behind()


def _store(flow: FlowStone) -> PostgresStore:
    flow.parts.executors.get("oban")
    store = flow.parts.store
    if not isinstance(store, PostgresStore):
        raise ExecutorUnavailableError("oban", "this store has no queue", "Configure a PostgreSQL database.")
    return store


def _heartbeat(
    flow: FlowStone, store: PostgresStore, name: str | None, limits: Mapping[str, int], board: NotBegunBoard
) -> Heartbeat:
    return Heartbeat(
        store.database,
        kind="node",
        name=name,
        queues=limits,
        beat_seconds=flow.settings.beat_seconds,
        lease_seconds=flow.settings.lease_seconds,
        board=board,
    )


def _node(
    flow: FlowStone,
    store: PostgresStore,
    committer: GroupCommitter,
    heartbeat: Heartbeat,
    limits: Mapping[str, int],
    grace_seconds: float | None,
    board: NotBegunBoard,
) -> Node:
    settings = flow.settings
    work = NodeWork(
        flow.graph,
        reader=flow.parts.reader,
        runner=flow.parts.runner,
        snooze_seconds=settings.snooze_seconds,
        standings=store.standings,
    )
    return Node(
        store.database.connect_parameters,
        schema=store.database.project.oban_schema,
        queue=store.queue,
        ledger=store.ledger,
        work=work,
        submit=committer.submit,
        worker_id=lambda: heartbeat.worker_id,
        queues=limits,
        grace_seconds=settings.grace_seconds if grace_seconds is None else grace_seconds,
        sweep_seconds=settings.sweep_seconds,
        not_begun=board,
    )


def _automations(flow: FlowStone, store: PostgresStore, limits: Mapping[str, int]) -> AutomationLoop:
    width = limits.get(_SENSORS) or flow.settings.queues.get(_SENSORS, DEFAULT_QUEUES[_SENSORS])
    lease = flow.settings.lease_seconds
    return AutomationLoop(flow.parts.evaluators, store.automations, width=width, lease_seconds=lease)


@contextmanager
def _events(heartbeat: Heartbeat, limits: Mapping[str, int]) -> Iterator[None]:
    started = time.monotonic()
    telemetry.emit("worker.start", {}, {"worker": heartbeat.worker_id, "queues": limits})
    yield
    telemetry.emit("worker.stop", {"duration_seconds": time.monotonic() - started}, {})


@contextmanager
def _background(flow: FlowStone, committer: GroupCommitter) -> Iterator[None]:
    committer.start()
    flow.parts.notices.start()
    yield
    committer.stop(timeout_seconds=_FLUSH_SECONDS)
    flow.parts.notices.stop()


def _leave_threads_behind() -> NoReturn:
    """End the process although user code runs in threads that nobody can stop; its work was handed back."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _run(node: Node, on_ready: Callable[[], None] | None, automations: AutomationLoop) -> bool:
    async def main() -> bool:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _ask_to_stop, stop, automations)
        return await node.run(stop, on_ready=on_ready)

    return asyncio.run(main())


def _ask_to_stop(stop: asyncio.Event, automations: AutomationLoop) -> None:
    if stop.is_set():
        log.warning("Second signal: leaving at once; others take running steps over.")
        os._exit(1)
    automations.close()
    stop.set()
