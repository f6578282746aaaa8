"""What steps log is kept with their attempt; nothing of it reaches the code that logs, or the commit."""

from __future__ import annotations

import asyncio
import contextvars
import io
import logging
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from tests.engine.isolated_functions import says_and_dies, says_much

from flowstone import FlowStone, Job, RetryPolicy, StaticPartitions, asset, scatter
from flowstone.config import Settings
from flowstone.core.logs import LogBatch, Trim
from flowstone.engine.logs import AttemptLog, LogCapture, keeper, prints_kept
from flowstone.errors import DatabaseUnavailableError
from flowstone.stores.memory.logs import MemoryLogs
from flowstone.stores.memory.tables import Tables

lib = logging.getLogger("some.library")


def logged(flow: FlowStone, step: Job | int, attempt: int | None = None) -> list[str]:
    return [f"{line.source} {line.text}" for line in flow.logs.of(step, attempt).lines]


def run(function: Any, **options: Any) -> list[str]:
    """Run a function as an asset and return what was kept of it."""
    one = asset(name="one", **options)(function)
    with FlowStone.for_testing([one]) as flow:
        return logged(flow, flow.schedule("one"))


def test_logs_of_the_function_are_those_of_its_attempt():
    def one(context):
        context.logger.info("%d rows", 3)
        lib.warning("careful")
        context.logger.debug("too fine")

    assert run(one) == ["INFO 3 rows", "WARNING careful"]


def test_logging_of_the_process_is_as_it_was(capsys):
    """dagster#4226: a handler on the root logger would silence the last resort, and disable basicConfig."""
    root = logging.getLogger()
    before = list(root.handlers)

    def one(context):
        context.logger.info("kept, not shown")

    assert run(one) == ["INFO kept, not shown"]
    assert root.handlers == before


def test_handlers_get_what_their_logger_gives_them(caplog):
    def one(context):
        context.logger.info("for the page")
        context.logger.error("for both")
        assert context.logger.isEnabledFor(logging.INFO)
        assert not context.logger.isEnabledFor(logging.DEBUG)

    assert run(one) == ["INFO for the page", "ERROR for both"]
    assert [record.getMessage() for record in caplog.records] == ["for both"]
    assert caplog.records[0].funcName == "one"


def test_a_level_that_is_set_counts(caplog):
    caplog.set_level(logging.DEBUG, "flowstone.asset.one")

    def one(context):
        context.logger.debug("fine")

    assert run(one) == ["DEBUG fine"]
    caplog.set_level(logging.ERROR, "flowstone.asset.one")

    def quiet(context):
        context.logger.warning("not even this")

    assert run(quiet) == []


def test_loggers_that_do_not_propagate_are_kept_too():
    alone = logging.getLogger("flowstone.tests.alone")
    alone.propagate = False

    def one():
        alone.error("heard")

    assert run(one) == ["ERROR heard"]


def test_neighbours_keep_their_lines_apart():
    both = threading.Barrier(2, timeout=10)

    @asset(partitions=StaticPartitions(["a", "b"]))
    def one(context):
        for number in range(20):
            both.wait()
            lib.warning("%s %d", context.partition, number)
            context.logger.info("%s", context.partition)

    with FlowStone.for_testing([one]) as flow:
        result = flow.backfill("one", partitions=["a", "b"], executor="async")
        for partition, done in result.results.items():
            lines = logged(flow, done.step_id)
            assert len(lines) == 40
            assert {line.split()[1] for line in lines} == {partition}


def test_coroutines_and_threads_with_the_context_belong_to_the_attempt():
    """dagster#8691: what was logged in the threads of a pool did not arrive."""

    async def one(context):
        lib.warning("in the coroutine")
        await asyncio.to_thread(lib.warning, "in its thread")
        with ThreadPoolExecutor() as pool:
            pool.submit(contextvars.copy_context().run, lib.warning, "in a copy of the context").result()
            pool.submit(context.logger.warning, "in any thread").result()
            pool.submit(lib.warning, "of nobody").result()

    texts = ["in the coroutine", "in its thread", "in a copy of the context", "in any thread"]
    assert run(one) == [f"WARNING {text}" for text in texts]


@pytest.mark.parametrize("executor", ["sync", "serial", "async"])
def test_every_executor_of_the_process_keeps_logs(executor):
    @asset
    def one(context):
        context.logger.info("here")

    with FlowStone.for_testing([one]) as flow:
        job = flow.schedule("one", executor=executor)
        flow.runs.wait(job)
        assert logged(flow, job) == ["INFO here"]


def test_items_of_a_scatter_keep_theirs():
    def page(context, page):
        context.logger.info("page %s", page)

    @scatter(each=page)
    def pages(context):
        context.logger.info("two of them")
        return ["a", "b"]

    with FlowStone.for_testing([pages]) as flow:
        job = flow.schedule("pages")
        assert logged(flow, job, 1) == ["INFO two of them"]
        (items,) = flow.runs.latest(parent=flow.runs.step(job).run_id)
        assert sorted(one.line.text for one in flow.logs.of_run(items).lines) == ["page a", "page b"]


def test_attempts_keep_theirs():
    """dagster#30063: the lines of all attempts were shown together."""

    @asset(retry=RetryPolicy(max_attempts=2, backoff=lambda *_: 0.0))
    def one(context):
        context.logger.info("try %d", context.attempt)
        if context.attempt == 1:
            raise ValueError("not yet")

    with FlowStone.for_testing([one]) as flow:
        job = flow.schedule("one", executor_opts={"retry": True})
        assert logged(flow, job, 1) == ["INFO try 1"]
        assert logged(flow, job, 2) == logged(flow, job) == ["INFO try 2"]
        assert [(one.attempt, one.lines) for one in flow.logs.counts(job)] == [(1, 1), (2, 1)]
        run_lines = flow.logs.of_run(flow.runs.latest()[0]).lines
        assert [(one.attempt, one.line.text) for one in run_lines] == [(1, "try 1"), (2, "try 2")]


def test_a_traceback_and_a_stack_are_kept():
    def one(context):
        try:
            raise KeyError("gone")
        except KeyError:
            context.logger.exception("no key")
        context.logger.info("where", stack_info=True)

    lines = run(one)
    assert lines[0] == "ERROR no key"
    assert "ERROR KeyError: 'gone'" in lines
    assert any("Stack (most recent call last)" in line for line in lines)


class Rude:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Talkative:
    """Logs while it is put into a message."""

    def __str__(self) -> str:
        lib.warning("%s", "from inside")
        return "talkative"


def test_hostile_messages_are_kept_as_far_as_possible():
    def one(context):
        context.logger.info("%d rows", "three")
        context.logger.info("%s %s", 1)  # noqa: PLE1206 - on purpose
        context.logger.info(Rude())
        context.logger.info("%s", Rude())
        context.logger.info("%s", Talkative())
        context.logger.info(b"\xff\x00")
        context.logger.info({"a": 1})
        context.logger.info("\udcff\x00 \x1b[1mbold")
        context.logger.info("x" * 10_000_000)
        context.logger.info("\r" * 5_000_000)
        context.logger.log(35, "a level of its own")
        context.logger.info("password=%s", "hunter2-of-this-test")
        return "goes on"

    raising = logging.raiseExceptions
    logging.raiseExceptions = False
    try:
        lines = run(one)
    finally:
        logging.raiseExceptions = raising
    assert lines[0].startswith("INFO %d rows (its arguments cannot be put in: TypeError)")
    assert "INFO <Rude, whose text raised RuntimeError> (its arguments cannot be put in: RuntimeError)" in lines
    assert "INFO talkative" in lines
    assert "INFO b'\\xff\\x00'" in lines
    assert "INFO \\udcff\\x00 bold" in lines
    assert "Level_35 a level of its own" in lines
    assert lines[-1] == "INFO password=***"
    assert sum(map(len, lines)) < 200_000


def test_a_handler_that_logs_or_raises_changes_nothing(caplog):
    class Recursive(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.name != "inner":
                logging.getLogger("inner").warning("from the handler")
            raise OSError("the disk is full")

        def handleError(self, record: logging.LogRecord) -> None:
            raise AssertionError("not called: emit raised")

    handler = Recursive()
    lib.addHandler(handler)

    def one():
        try:
            lib.warning("one")
        except OSError:
            lib.removeHandler(handler)
            lib.warning("two")

    try:
        assert run(one) == ["WARNING one", "WARNING from the handler", "WARNING two"]
    finally:
        lib.removeHandler(handler)


def test_what_is_logged_after_the_end_is_not_kept_and_harms_nobody():
    go, gone = threading.Event(), threading.Event()

    def one(context):
        def late() -> None:
            go.wait(10)
            context.logger.info("too late")
            lib.warning("too late")
            gone.set()

        threading.Thread(target=contextvars.copy_context().run, args=(late,), daemon=True).start()
        context.logger.info("in time")

    one = asset(name="one")(one)
    with FlowStone.for_testing([one]) as flow:
        job = flow.schedule("one")
        go.set()
        assert gone.wait(10)
        assert logged(flow, job) == ["INFO in time"]


def test_a_logger_of_an_attempt_is_pickled_by_its_name():
    seen = []

    def one(context):
        seen.append(pickle.loads(pickle.dumps(context.logger)))

    run(one)
    assert seen == [logging.getLogger("flowstone.asset.one")]


def test_nothing_is_captured_when_logs_are_not_kept():
    @asset
    def one(context):
        context.logger.warning("to the handlers only")
        assert type(context.logger) is logging.Logger

    flow = FlowStone([one], settings=Settings(executor="sync", log_days=0))
    assert flow.parts.logs is None
    assert logged(flow, flow.schedule("one")) == []


def test_the_log_of_a_step_that_runs_is_read_while_it_runs():
    """dagster#18361: lines appeared when the run was over."""
    seen: list[list[str]] = []

    def one(context):
        context.logger.info("began")
        seen.append(logged(flow_of[0], context.step_id))
        assert not flow_of[0].logs.of(context.step_id).over

    flow_of: list[FlowStone] = []
    one = asset(name="one")(one)
    with FlowStone.for_testing([one]) as flow:
        flow_of.append(flow)
        job = flow.schedule("one")
        assert seen == [["INFO began"]]
        assert flow.logs.of(job).over


def test_pages_go_on_where_the_last_one_ended():
    @asset
    def one(context):
        for number in range(5_000):
            context.logger.info("%d", number + 1)

    with FlowStone.for_testing([one]) as flow:
        job = flow.schedule("one")
        first = flow.logs.of(job, limit=60)
        second = flow.logs.of(job, after=first.next, limit=60)
        numbers = [line.number for line in (*first.lines, *second.lines)]
        assert numbers[:100] == list(range(1, 101))
        assert second.lines[40].left_out == numbers[100] - 101 > 2_000
        assert (first.total, first.more, first.previous) == (5_000, True, None)
        assert 2_000 <= first.kept < 2_300
        last = flow.logs.of(job, newest=True, limit=10)
        assert [line.number for line in last.lines] == list(range(4_991, 5_001))
        assert not last.more
        earlier = flow.logs.of(job, before=last.previous, limit=10)
        assert [line.number for line in earlier.lines] == list(range(4_981, 4_991))
        assert flow.logs.of(job, after=last.next).lines == ()


def test_prints_are_kept_where_the_process_is_ours(monkeypatch):
    written = io.StringIO()
    monkeypatch.setattr(sys, "stdout", written)

    def one():
        print("printed", 1)
        print("10 %\r100 %", end="")

    assert run(one) == []
    with prints_kept():
        assert run(one) == ["stdout printed 1", "stdout 100 %"]
        print("outside")
    assert sys.stdout is written
    assert written.getvalue() == "printed 1\n10 %\r100 %" * 2 + "outside\n"


class Broken(MemoryLogs):
    """Fails as long as it is set to fail."""

    failing: Exception | None = None

    def append(self, batches: Sequence[LogBatch], trims: Sequence[Trim]) -> None:
        if self.failing is not None and (
            not isinstance(self.failing, ValueError) or any(b.line == 2 for b in batches)
        ):
            raise self.failing
        super().append(batches, trims)


@pytest.fixture
def attempt() -> Any:
    return SimpleNamespace(step_id=7, attempt=1, token=1, run_id="r")


@pytest.fixture
def store() -> Broken:
    return Broken(Tables())


def record(text: str) -> logging.LogRecord:
    return logging.makeLogRecord({"msg": text, "levelname": "INFO", "created": datetime.now(UTC).timestamp()})


def test_what_cannot_be_written_is_kept_and_written_later(store, attempt):
    """Nothing waits for it: the thread that logs has long gone on."""
    capture = LogCapture(store)
    store.failing = DatabaseUnavailableError("the database", "away")
    kept = AttemptLog(capture, attempt)
    kept.record(record("one"))
    kept.end()
    assert not capture.flush(timeout_seconds=1.0)
    store.failing = None
    kept = AttemptLog(capture, SimpleNamespace(step_id=8, attempt=1, token=2, run_id="r"))
    kept.record(record("two"))
    kept.end()
    capture._pause = 0.01
    assert capture.flush(timeout_seconds=5.0)
    assert [line.text for one in store.of_run("r") for line in one.batch.read()] == ["one", "two"]
    capture.close()


def test_a_batch_that_is_refused_takes_no_other_with_it(store, attempt):
    capture = LogCapture(store, at_once=True)
    store.failing = ValueError("no such line")
    kept = AttemptLog(capture, attempt)
    for text in ("one", "two", "three"):
        kept.record(record(text))
        capture.flush()
    for _ in range(3):
        capture.flush()
    assert [line.text for one in store.of_run("r") for line in one.batch.read()] == ["one", "three"]
    assert [one.lines for one in store.counts([7])] == [3]


def test_memory_is_bounded_as_a_whole():
    store = MemoryLogs(Tables(), max_characters=1_000)
    for step in range(50):
        store.append([LogBatch(step, 1, step, 1, 1, f"r{step}", "0 I " + "x" * 96)], [])
    assert [one.step_id for one in store.counts(range(50))] == list(range(40, 50))
    assert store.of_run("r3") == []
    assert not store._runs["r3"]


def test_a_process_holds_no_more_than_its_bound(store, attempt, monkeypatch):
    monkeypatch.setattr("flowstone.engine.logs._MAX_CHARACTERS", 10_000)
    capture = LogCapture(store, at_once=True)
    kept = [AttemptLog(capture, SimpleNamespace(step_id=n, attempt=1, token=n, run_id="r")) for n in range(3)]
    for _ in range(500):
        for one in kept:
            one.record(record("y" * 90))
    held = sum(one.buffer.characters for one in kept if one.buffer is not None)
    assert held < 40_000  # the heads, and little more
    capture.flush()
    assert [one.lines for one in store.counts(range(3))] == [500, 500, 500]


def test_outside_of_steps_nothing_is_kept():
    assert keeper() is None
    lib.warning("nobody")


@pytest.fixture
def apart() -> Iterator[FlowStone]:
    with FlowStone.for_testing([says_much, says_and_dies]) as opened:
        yield opened


def test_output_of_processes_of_their_own_is_kept(apart, capfd):
    """dagster#1659: what was logged in other processes did not appear."""
    lines = logged(apart, apart.schedule("says_much"))
    # three ways lead out of the process: each keeps its order, between them it may differ by a moment
    by_way = {
        way: [line for line in lines if line.startswith(way)] for way in ("stdout", "stderr", "INFO", "WARN")
    }
    printed = ["printed", "of a subprocess", "99 %", "half a line ü"]
    assert by_way["stdout"] == [f"stdout {text}" for text in printed]
    assert by_way["stderr"] == ["stderr to stderr"]
    assert by_way["INFO"] + by_way["WARN"] == ["INFO logged 1", "WARNING of a library"]
    assert len(lines) == 7
    assert "printed\n" in capfd.readouterr().out


def test_the_last_words_of_a_process_that_dies_are_kept(apart, capfd):
    lines = logged(apart, apart.schedule("says_and_dies"))
    assert lines[0] == "stdout last words"
    assert any("Abort" in line for line in lines)


def test_a_process_that_ends_at_once_leaves_its_log_in_the_database(database_url, tmp_path):
    """dagster#23336, prefect#15866, prefect#7626: the last lines of what ended quickly were lost."""
    program = tmp_path / "short.py"
    program.write_text(
        "import sys\n"
        "from flowstone import FlowStone, asset\n"
        "@asset\n"
        "def short(context):\n"
        "    context.logger.info('the only line')\n"
        "flow = FlowStone([short], database_url=sys.argv[1])\n"
        "print(flow.schedule('short', executor='sync').id)\n"
    )
    done = subprocess.run([sys.executable, str(program), database_url], capture_output=True, text=True, check=True)
    with FlowStone([], database_url=database_url) as flow:
        assert logged(flow, int(done.stdout)) == ["INFO the only line"]


def test_a_run_is_read_in_pages_without_loss():
    @asset(partitions=StaticPartitions([f"p{number}" for number in range(30)]))
    def one(context):
        for number in range(number_of[context.partition]):
            context.logger.info("%s %d", context.partition, number)

    number_of = {f"p{number}": 7 * number % 23 for number in range(30)}
    with FlowStone.for_testing([one]) as flow:
        run = flow.backfill("one").run_id
        seen: list[str] = []
        place: str | None = None
        while True:
            page = flow.logs.of_run(run, after=place, limit=10)
            assert len(page.lines) <= 22
            seen += [line.line.text for line in page.lines]
            place = page.next
            if not page.more:
                break
        assert len(seen) == len(set(seen)) == sum(number_of.values())
        assert [line.line.text for line in flow.logs.of_run(run, newest=True, limit=10).lines][-1] == seen[-1]


def test_bytes_without_lines_are_bounded_and_never_raise():
    kept = AttemptLog(
        LogCapture(MemoryLogs(Tables()), at_once=True), SimpleNamespace(step_id=1, attempt=1, token=1)
    )
    kept.attempt.run_id = "r"
    for _ in range(200):
        kept.printed("stdout", "x" * 65_536)  # more than 10 MB without an end
        kept.printed("stderr", "50 %\r" * 10_000)
    kept.printed("stderr", "100 %\n")
    kept.printed("stdout", "\n\x00\udcff\x1b[2J end\n")
    kept.end()
    (count,) = kept.capture._store.counts([1])
    assert count.lines < 10
    lines = [line.text for one in kept.capture._store.read(1, 1) for line in one.read()]
    assert "100 %" in lines
    assert any(line.endswith("\\x00\\udcff end") for line in lines)
    assert sum(map(len, lines)) < 100_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # it forks on purpose
def test_a_forked_copy_logs_without_hanging_and_keeps_nothing():
    def one(context):
        context.logger.info("before")
        child = os.fork()
        if not child:
            context.logger.info("in the copy")
            lib.warning("in the copy")
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        context.logger.info("after")

    assert run(one) == ["INFO before", "INFO after"]
