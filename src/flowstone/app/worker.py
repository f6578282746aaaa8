"""Running a worker node for an app."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import logging
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from typing import Any, NoReturn

from flowstone import __version__, telemetry
from flowstone.app.flow import FlowStone
from flowstone.config import DEFAULT_QUEUES
from flowstone.core.forks import renew_after_fork
from flowstone.core.step import AttemptResult, CommitResult
from flowstone.engine.automation.loop import AutomationLoop
from flowstone.engine.step_log import StepLog
from flowstone.engine.worker import GroupCommitter, NodeWork
from flowstone.errors import ExecutorUnavailableError
from flowstone.executors.oban.at_commit import AtCommit
from flowstone.executors.oban.node import Node
from flowstone.observability.metrics import Metrics, ProcessMetrics, TableMetrics
from flowstone.stores.postgres import oban_jobs
from flowstone.stores.postgres.lease import Heartbeat, UnstartedAttemptsBoard
from flowstone.stores.postgres.queue import shapes_at_work
from flowstone.stores.postgres.store import PostgresStore

log = logging.getLogger("flowstone.worker")

_LAST_SECONDS = 19.0
"""How long everything after the grace may take; the documents say 20 s."""
_CLEAN_UP_SECONDS = 10.0
"""How long user code may clean up after all was committed or released, exit handlers included."""
_FLUSH_SECONDS = 15.0
_START_SECONDS = 30.0
_SENSORS = "sensors"
_RULES_SECONDS = 7 * 86_400.0
"""A rule of notifications that no process has declared for so long decides nothing any more."""
_LIVE_SECONDS = 5.0
"""So long the event loop may take to answer; whoever probes should wait longer."""
_STOP_SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP")


def serve(
    flow: FlowStone,
    *,
    queues: Mapping[str, int] | None = None,
    name: str | None = None,
    grace_seconds: float | None = None,
    on_ready: Callable[[], None] | None = None,
    ends_process: bool = False,
    automation: bool = True,
    health_port: int | None = None,
    health_host: str = "127.0.0.1",
    on_health: Callable[[str], None] | None = None,
) -> int:
    """Run a worker node in this process until SIGTERM, SIGINT or SIGHUP, then return an exit code.

    The first signal stops taking work, gives running steps the grace, and hands the rest back with their
    attempts. A second one leaves at once, and others take over. Within the grace plus 20 s it is over, whatever
    user code does: what does not end by then is left behind with the process.

    Args:
        flow: the app whose assets this node runs.
        queues: queue name to steps at once; the settings' by default.
        name: name of this node for people, in place of the host's.
        grace_seconds: how long running steps may finish; the settings' by default.
        on_ready: called when the node acquires work.
        ends_process: whether the process is to end when this returns. It then does, within the same time, also
            when threads, executors or exit handlers of user code hang.
        automation: whether this node evaluates schedules, sensors and conditions by itself; else only those that
            people ask for.
        health_port: port for `/live`, `/ready` and `/metrics`; 0 for any that is free, None for none.
        health_host: address to listen on for that.
        on_health: called with the address at which it answers.

    Returns:
        0 when everything ended in order.

    Raises:
        ExecutorUnavailableError: the app has no database.
    """
    store = _store(flow)
    limits = queues or flow.settings.queues
    grace = flow.settings.grace_seconds if grace_seconds is None else grace_seconds
    board = UnstartedAttemptsBoard()
    heartbeat = _heartbeat(flow, store, name, limits, board)
    steps = StepLog(flow.graph.label)
    committers = _Committers(flow, store, steps)
    node = _node(flow, store, committers, steps, heartbeat, limits, grace, board)
    automations = _automations(flow, store, limits, by_hand_only=not automation)
    stopping = _Stopping(grace + _LAST_SECONDS, automations.close)
    probes = _Probes(node, heartbeat, stopping)
    answers = _answers(flow, probes, health_host, health_port, on_health)
    with answers, _events(heartbeat, limits), _background(flow, committers), _loaded_for_good():
        _warn_of_disagreements(flow, store, heartbeat)
        automations.start()
        all_ended = asyncio.run(_run(node, probes.ready_with(on_ready), stopping, probes))
        all_ended = automations.stop() and all_ended
    heartbeat.stop()
    stopping.in_order()
    flow.close()
    if not all_ended:
        _leave(0)  # user code runs in threads that nobody can stop; its work was released
    if not ends_process:
        stopping.let_live()
    return 0


@contextmanager
def _loaded_for_good() -> Iterator[None]:
    """Keep the collector from going through what is loaded already, which lives as long as the worker."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def working(
    flow: FlowStone, *, queues: Mapping[str, int] | None = None, grace_seconds: float = 5.0
) -> Iterator[None]:
    """Run a worker node in threads of this process while the block runs: for tests and notebooks.

    It takes no signals and evaluates no automations; the app stays open.

    Args:
        flow: the app whose assets it runs.
        queues: queue name to steps at once; the settings' by default.
        grace_seconds: how long running steps may finish at the end.

    Raises:
        ExecutorUnavailableError: the app has no database, or the node could not start.
    """
    store = _store(flow)
    limits = queues or flow.settings.queues
    board = UnstartedAttemptsBoard()
    heartbeat = _heartbeat(flow, store, "in-process", limits, board)
    steps = StepLog(flow.graph.label)
    committers = _Committers(flow, store, steps)
    node = _node(flow, store, committers, steps, heartbeat, limits, grace_seconds, board)
    running = _RunningNode(node)
    committers.start()
    flow.parts.notices.start()
    try:
        running.start()
        yield
    finally:
        running.stop(grace_seconds + _LAST_SECONDS)
        committers.stop()
        flow.parts.notices.stop()
        heartbeat.stop()


class _RunningNode:
    """A node in a thread with an event loop of its own."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._stop: Callable[[], object] = lambda: None
        self._thread = threading.Thread(target=self._run, name="flowstone-node", daemon=True)

    def start(self) -> None:
        """Return when the node acquires work.

        Raises:
            ExecutorUnavailableError: it ended before that.
        """
        self._thread.start()
        self._ready.wait(_START_SECONDS)
        if self._error is not None or not self._ready.is_set():
            raise ExecutorUnavailableError(
                "oban", f"a worker in this process did not start ({self._error or 'not in time'})", ""
            ) from self._error

    def stop(self, timeout_seconds: float) -> None:
        """Stop the node and wait for its thread."""
        self._stop()
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:  # noqa: BLE001 - raised where the node is started
            self._error = error
        finally:
            self._ready.set()

    async def _main(self) -> None:
        loop, requested = asyncio.get_running_loop(), asyncio.Event()

        def stop() -> None:
            with suppress(RuntimeError):  # the loop is closed: the node has ended
                loop.call_soon_threadsafe(requested.set)

        self._stop = stop
        await self._node.run(requested, on_ready=self._ready.set)


class _Committers:
    """The group committer, and another one for what is published by its commit, where the app has such values.

    Replacing a partition of a table may take a while; what is committed beside it must not wait for that.

    Args:
        flow: the app.
        store: commits.
        steps: logs what was committed.
    """

    def __init__(self, flow: FlowStone, store: PostgresStore, steps: StepLog) -> None:
        self._publisher = publisher = flow.parts.publisher
        self._every_seconds = flow.settings.sweep_seconds
        self._store = store
        self.at_commit = AtCommit()
        self._steps = steps
        plain = GroupCommitter(self._commit, on_commit=self._committed)
        self._all = [plain]
        self.submit: Callable[[AttemptResult], None] = plain.submit
        if publisher is not None:
            apart = GroupCommitter(self._commit, on_commit=self._committed)
            self._all.append(apart)
            self.submit = lambda one: (apart if publisher.publishes(one) else plain).submit(one)

    def _commit(self, group: Sequence[AttemptResult]) -> list[CommitResult]:
        return self._store.ledger.commit(group, room=self.at_commit.room())

    def _committed(self, group: Sequence[AttemptResult], committed: Sequence[CommitResult]) -> None:
        self.at_commit.take_up(committed)
        self._steps.ended(group, committed)

    def start(self) -> None:
        """Start the threads."""
        for one in self._all:
            one.start()
        if self._publisher is not None:
            self._publisher.start(every_seconds=self._every_seconds)

    def stop(self) -> None:
        """Commit what was submitted, and end the threads."""
        for one in self._all:
            one.stop(timeout_seconds=_FLUSH_SECONDS)
        if self._publisher is not None:
            self._publisher.stop()


class _Stopping:
    """What the first signal begins and the second one cuts short, with an end that nothing can put off.

    Args:
        limit_seconds: the process ends so long after the first signal at the latest.
        on_stop: called at the first signal.
    """

    def __init__(self, limit_seconds: float, on_stop: Callable[[], None]) -> None:
        self._limit = limit_seconds
        self._on_stop = on_stop
        self._deadline = 0.0
        self._in_order = False
        self._changed = threading.Event()
        self._alive = False
        self._before: dict[int, Any] = {}
        for name in _STOP_SIGNALS:
            number = getattr(signal, name, None)
            # one that was set aside before we came stays so: nohup does that with SIGHUP
            if number is not None and not (name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN):
                self._before[number] = signal.getsignal(number)
        self.requested = asyncio.Event()

    def hold(self) -> None:
        """Take signals without the loop, which is about to end."""
        loop = asyncio.get_running_loop()
        for number in self._before:
            loop.remove_signal_handler(number)
            signal.signal(number, lambda number, _frame: self._ask(number))

    def listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take signals from here on."""
        for number in self._before:
            loop.add_signal_handler(number, self._ask, number)
        # a signal to a process that user code forked would wake our loop: they share its file descriptor
        renew_after_fork(self, _Stopping._restore)

    def _ask(self, number: int) -> None:
        if self.requested.is_set():
            # a terminal that closes sends SIGHUP more than once, a supervisor sends it with SIGTERM
            if number != getattr(signal, "SIGHUP", None):
                log.warning("Second signal: leaving at once; others take running steps over.")
                os._exit(1)
            return
        self.requested.set()
        self._set_deadline(self._limit)
        threading.Thread(target=self._end_late, name="flowstone-last-resort", daemon=True).start()
        self._on_stop()

    def in_order(self) -> None:
        """Note that all was committed or released: what is left is cleaning up."""
        self._in_order = True
        left = self._deadline - time.monotonic()
        self._set_deadline(min(left, _CLEAN_UP_SECONDS) if self.requested.is_set() else _CLEAN_UP_SECONDS)

    def let_live(self) -> None:
        """Let the process live on, with the signal handlers that it had."""
        self._alive = True
        self._changed.set()
        with suppress(RuntimeError):
            faulthandler.cancel_dump_traceback_later()
        self._restore()

    def _restore(self) -> None:
        with suppress(ValueError):  # not the main thread
            signal.set_wakeup_fd(-1)
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def _set_deadline(self, seconds: float) -> None:
        self._deadline = time.monotonic() + max(0.0, seconds)
        self._changed.set()
        # for code that holds the interpreter's lock, in which no thread of ours can run
        with suppress(RuntimeError, ValueError, AttributeError, OSError):  # no standard error, no such watch
            faulthandler.dump_traceback_later(max(0.0, seconds) + 1.0, exit=True)

    def _end_late(self) -> None:
        while (left := self._deadline - time.monotonic()) > 0:
            self._changed.wait(left)
            self._changed.clear()
            if self._alive:
                return
        ours = (threading.main_thread(), threading.current_thread())
        names = sorted(
            {thread.name for thread in threading.enumerate() if thread not in ours and not thread.daemon}
        )
        what = f"The threads {', '.join(names)}" if names else "Clean-up code, an exit handler or the database"
        done = "everything was released" if self._in_order else "others take over when the lease runs out"
        log.warning("%s did not end: leaving now all the same; %s.", what, done)
        _leave(0 if self._in_order else 1)


class _Probes:
    """What a supervisor asks: does this process still work, and does it take work?

    Args:
        node: the node.
        heartbeat: renews its lease.
        stopping: whether it is about to end.
    """

    def __init__(self, node: Node, heartbeat: Heartbeat, stopping: _Stopping) -> None:
        self._node = node
        self._heartbeat = heartbeat
        self._stopping = stopping
        self._is_ready = False
        self.loop: asyncio.AbstractEventLoop | None = None

    def ready_with(self, on_ready: Callable[[], None] | None) -> Callable[[], None]:
        """Return what is to be called when the node takes work."""

        def ready() -> None:
            self._is_ready = True
            if on_ready is not None:
                on_ready()

        return ready

    def live(self) -> str | None:
        """Return why this process should be ended, if it should: its loop is blocked. The database may be away."""
        if self.loop is None:
            return None
        answered = threading.Event()
        try:
            self.loop.call_soon_threadsafe(answered.set)
        except RuntimeError:
            return None  # the loop is closed: the process ends by itself
        return (
            None if answered.wait(_LIVE_SECONDS) else f"the event loop did not answer within {_LIVE_SECONDS:g} s"
        )

    def ready(self) -> str | None:
        """Return why it takes no work, if it takes none."""
        if self._stopping.requested.is_set():
            return "it is stopping"
        if not self._is_ready:
            return "it does not take work yet"
        if self._node.is_cut_off:
            return "no jobs can be taken: the database does not answer"
        return None if self._heartbeat.wait_renewed(0.0) else "its lease is not renewed in time"


@contextmanager
def _answers(
    flow: FlowStone, probes: _Probes, host: str, port: int | None, on_health: Callable[[str], None] | None
) -> Iterator[None]:
    """Answer probes and scrapes meanwhile."""
    if port is None:
        yield
        return
    process, reading = ProcessMetrics(flow.graph), flow.reading()
    metrics = Metrics(__version__, process=process, tables=TableMetrics(reading.insights, reading.parts.store))
    process.start()
    try:
        # loaded only now: a server for HTTP is much to import, and most workers answer nobody
        health = import_module("flowstone.observability.health")
        with health.HealthServer(host, port, live=probes.live, ready=probes.ready, metrics=metrics.text) as server:
            if on_health is not None:
                on_health(server.address)
            yield
    finally:
        process.stop()
        reading.close()


def _store(flow: FlowStone) -> PostgresStore:
    flow.parts.executors.get("oban")
    store = flow.parts.store
    if not isinstance(store, PostgresStore):
        raise ExecutorUnavailableError("oban", "this store has no queue", "Configure a PostgreSQL database.")
    # what a client never needs, such as the tables that Oban's own loops write to, and the right to do so
    if wrong := oban_jobs.problems(store.database):
        raise ExecutorUnavailableError(
            "oban",
            f"Oban's tables do not fit: {'; '.join(wrong)}",
            "`flowstone db upgrade` adds what is missing, or says why it cannot.",
        )
    return store


def _heartbeat(
    flow: FlowStone,
    store: PostgresStore,
    name: str | None,
    limits: Mapping[str, int],
    board: UnstartedAttemptsBoard,
) -> Heartbeat:
    return Heartbeat(
        store.database,
        kind="node",
        name=name,
        queues=limits,
        beat_seconds=flow.settings.beat_seconds,
        lease_seconds=flow.settings.lease_seconds,
        board=board,
        assets=flow.parts.shapes.to_json,
    )


def _node(
    flow: FlowStone,
    store: PostgresStore,
    committers: _Committers,
    steps: StepLog,
    heartbeat: Heartbeat,
    limits: Mapping[str, int],
    grace_seconds: float,
    board: UnstartedAttemptsBoard,
) -> Node:
    settings = flow.settings
    work = NodeWork(
        flow.graph,
        reader=flow.parts.reader,
        runner=flow.parts.runner,
        snooze_seconds=settings.snooze_seconds,
        target_statuses=store.target_statuses,
        shapes=flow.parts.shapes,
        others=lambda: store.queue.known_assets(but=heartbeat.worker_id),
        on_begin=steps.began,
    )
    return Node(
        store.database.connect_parameters,
        schema=store.database.project.oban_schema,
        queue=store.queue,
        ledger=store.ledger,
        work=work,
        submit=committers.submit,
        at_commit=committers.at_commit,
        worker_id=lambda: heartbeat.worker_id,
        is_renewed=heartbeat.wait_renewed,
        queues=limits,
        grace_seconds=grace_seconds,
        sweep_seconds=settings.sweep_seconds,
        unstarted=board,
        oban_name=settings.oban["name"],
        metrics=settings.oban["metrics"],
        prune_after_seconds=settings.oban["prune_after_seconds"],
        sweep_values=flow.retention.sweep,
        prune_old=partial(_prune_old, flow),
    )


def _prune_old(flow: FlowStone) -> int:
    """Delete what is kept for a time only; return how much of it."""
    notifications = flow.parts.store.notifications
    for one in notifications.keep_rules(for_seconds=_RULES_SECONDS):
        log.warning("Notification %d of the rule %r is given up: no process declares that rule.", one.id, one.rule)
    pruned = notifications.prune(older_than_seconds=flow.settings.retention_days * 86_400)
    return pruned + flow.retention.prune_logs()


def left_off(flow: FlowStone) -> str:
    """Return what a node without automation leaves off, for people; empty when the app has nothing of that kind.

    Example:
        >>> left_off(FlowStone([]))
        ''
    """
    number = Counter(one.id.kind.value for one in flow.evaluators)
    return ", ".join(f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in sorted(number.items()))


def _automations(
    flow: FlowStone, store: PostgresStore, limits: Mapping[str, int], *, by_hand_only: bool
) -> AutomationLoop:
    width = limits.get(_SENSORS) or flow.settings.queues.get(_SENSORS, DEFAULT_QUEUES[_SENSORS])
    lease = flow.settings.lease_seconds
    return AutomationLoop(
        flow.evaluators, store.automations, width=width, lease_seconds=lease, by_hand_only=by_hand_only
    )


def _warn_of_disagreements(flow: FlowStone, store: PostgresStore, heartbeat: Heartbeat) -> None:
    at_work = shapes_at_work(store.database, but=heartbeat.worker_id)
    for disagreement in flow.parts.shapes.disagreements((who, assets) for who, _, assets in at_work):
        log.warning("%s. This worker runs only steps that were placed with what it declares.", disagreement)


@contextmanager
def _events(heartbeat: Heartbeat, limits: Mapping[str, int]) -> Iterator[None]:
    started = time.monotonic()
    telemetry.emit("worker.start", {}, {"worker": heartbeat.worker_id, "queues": limits})
    yield
    telemetry.emit("worker.stop", {"duration_seconds": time.monotonic() - started}, {})


@contextmanager
def _background(flow: FlowStone, committers: _Committers) -> Iterator[None]:
    committers.start()
    flow.parts.notices.start()
    notifications = flow.parts.notifications
    # also without rules: those that an earlier version of the app declared hold no more
    notifications.store.declare([one.name for one in flow.graph])
    if notifications.in_use:
        notifications.delivery.start()
    yield
    committers.stop()
    flow.parts.notices.stop()
    notifications.delivery.stop()


def _leave(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # closed, or replaced by something that cannot
            stream.flush()
    os._exit(code)


async def _run(node: Node, on_ready: Callable[[], None], stopping: _Stopping, probes: _Probes) -> bool:
    probes.loop = asyncio.get_running_loop()
    stopping.listen(probes.loop)
    try:
        return await node.run(stopping.requested, on_ready=on_ready)
    finally:
        stopping.hold()
