"""An app that notifies: what is declared, what is sent, when, and in which words."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from flowstone import (
    CheckResult,
    DailyPartitions,
    FlowStone,
    Message,
    Notify,
    RetryPolicy,
    Schedule,
    SensorContext,
    StaticPartitions,
    asset,
    check,
    sensor,
    telemetry,
)
from flowstone.config import Settings
from flowstone.core.notification import NotificationState
from flowstone.core.partitions import encode_partition
from flowstone.engine.freshness import FreshnessReader
from flowstone.engine.notifications import Delivery
from flowstone.errors import ConfigurationError, DefinitionError, OptionsError, SelectionError, UnknownAssetError
from flowstone.testing.marks import wait_until

NUMBERS = StaticPartitions([f"{number:04}" for number in range(5000)])


@asset
def orders():
    raise ValueError("no rows\r\nBcc: all@example.com password=tr0ub4dor&3")


@asset(tags=["gold"])
def report(orders):
    return orders


@asset(partitions=NUMBERS)
def many(context):
    raise ValueError("each of them")


class Collected:
    """A sender that keeps what it gets, or raises what a test wants it to."""

    name = "collected"

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.problems: list[BaseException] = []

    def send(self, message: Message) -> None:
        if self.problems:
            raise self.problems.pop(0)
        self.messages.append(message)

    @property
    def subjects(self) -> list[str]:
        return [one.subject for one in self.messages]


@pytest.fixture
def sender() -> Collected:
    return Collected()


def app(*assets: Any, notify: Any, **options: Any) -> FlowStone:
    """Return an app in memory that sends; `for_testing` would only decide."""
    settings = options.pop("settings", None) or Settings(executor="sync")
    return FlowStone(assets, notify=notify if isinstance(notify, list) else [notify], settings=settings, **options)


# --- what is sent -----------------------------------------------------------------------------------------


def test_a_failure_is_sent_when_the_run_is_over(sender: Collected) -> None:
    settings = Settings(executor="sync", dashboard_url="https://flow.example.com/base/", project="shop")
    with app(orders, report, notify=Notify(to=sender, on="failed"), settings=settings) as flow:
        run = flow.materialize_all("report")
    (message,) = sender.messages
    assert message.subject == "[shop] 1 failed, 1 not computed: orders, report"
    assert message.url == f"https://flow.example.com/base/run?id={run.run_id}"
    assert "tr0ub4dor" not in message.text
    assert "- report was not computed: input orders ended as failed" in message.text
    assert (message.good, message.run_id, message.project) == (False, run.run_id, "shop")


@pytest.mark.parametrize("executor", ["sync", "async", "serial"])
def test_each_inline_executor_sends(sender: Collected, executor: str) -> None:
    with app(orders, notify=Notify(to=sender, on="failed")) as flow:
        with pytest.raises(ValueError, match="no rows"):
            flow.materialize("orders", executor=executor)
        assert sender.subjects == ["orders failed: ValueError: no rows"]


def test_a_run_that_fails_in_5000_partitions_sends_one_message(sender: Collected) -> None:
    """mitodl/ol-infrastructure#5603: a sensor that sent one for each fell behind by twelve days."""
    with app(many, notify=Notify(to=sender), settings=Settings(executor="sync", log_days=0)) as flow:
        flow.backfill("many", partitions=flow.graph["many"].partitions.keys(datetime.now(UTC)))  # type: ignore[union-attr]
    (message,) = sender.messages
    assert message.subject == "5000 failed: many"
    assert "... and 4,980 more" in message.text
    assert len(message.text) < 5000


def test_retries_are_nobodys_business(sender: Collected) -> None:
    """Once after the last attempt, and not at all when one of them succeeds: airflow#12612."""
    tries: list[int] = []

    @asset(retry=RetryPolicy(max_attempts=3, backoff_seconds=0.001))
    def flaky(context):
        tries.append(context.attempt)
        if context.attempt < 3:
            raise ValueError("away")

    with app(flaky, orders, notify=Notify(to=sender)) as flow:
        flow.materialize("flaky", executor_opts={"retry": True})
    assert (tries, sender.messages) == ([1, 2, 3], [])


def test_what_recovered_is_good_news(sender: Collected) -> None:
    fails = [True]

    @asset(partitions=StaticPartitions(["eu", "us"]))
    def stock(context):
        if fails[0]:
            raise ValueError("away")

    with app(stock, notify=Notify(to=sender)) as flow:
        with pytest.raises(ValueError, match="away"):
            flow.materialize("stock", partition="eu")
        fails[0] = False
        flow.materialize("stock", partition="us")
        flow.materialize("stock", partition="eu")
    assert [one.good for one in sender.messages] == [False, True]
    assert sender.subjects[1].startswith("stock [eu] recovered: had failed since ")


def test_checks_and_approvals(sender: Collected) -> None:
    @asset
    def stock():
        return []

    @check(stock)
    def not_empty(stock):
        return CheckResult(passed=bool(stock), description=f"{len(stock)} rows")

    with app(stock, notify=Notify(to=sender, on=["check_failed"]), checks=[not_empty]) as flow:
        flow.materialize("stock")
        flow.checks.run("stock")
        flow.notifications.deliver()
    assert sender.subjects == ["stock failed a check (not_empty): 0 rows"] * 2


def test_an_approval_is_sent_while_the_step_waits(sender: Collected) -> None:
    from flowstone import AwaitApproval

    @asset
    def payment(context):
        if context.approval is None:
            raise AwaitApproval("Pay 2 invoices?")

    def decide(message: Message) -> None:
        sender.send(message)
        flow.approvals.approve(flow.approvals.list()[0].id, by="ann")

    settings = Settings(executor="sync", dashboard_url="https://flow.example.com")
    with app(payment, notify=Notify(to=decide, on="approval"), settings=settings) as flow:
        flow.materialize("payment")
    (message,) = sender.messages
    assert message.subject == "payment waits for a decision: Pay 2 invoices?"
    assert message.url == "https://flow.example.com/approval?id=1"


def test_failing_sensors_and_schedules(sender: Collected) -> None:
    """dagster#29625. Only of those that are about what is selected."""

    @asset(partitions=DailyPartitions(start="2024-01-01"))
    def other(context): ...

    @sensor(every=3600, selection="other")
    def inbox(context: SensorContext) -> Any:
        raise ConnectionError("nobody there")

    @sensor(every=3600, selection="report")
    def elsewhere(context: SensorContext) -> Any:
        raise ConnectionError("nobody there")

    def impossible(at: datetime) -> Any:
        raise ValueError("no such day")

    nightly = Schedule("other", "* * * * *", name="nightly", partition=impossible)
    options = {"sensors": [inbox, elsewhere], "schedules": [nightly]}
    rules = [Notify(to=sender, on="automation_failed", selection="other")]
    with app(other, orders, report, notify=rules, **options) as flow:
        from flowstone.engine.automation.loop import AutomationLoop

        loop = AutomationLoop(flow.evaluators, flow.parts.store.automations, width=3, lease_seconds=60)
        loop.start()
        assert wait_until(
            lambda: flow.sensors.ticks("inbox") and flow.sensors.ticks("elsewhere"), timeout_seconds=20
        )
        loop.stop()
        flow.notifications.deliver()
    assert "sensor:inbox fails: ConnectionError: nobody there" in sender.subjects
    assert not any("elsewhere" in one for one in sender.subjects)


# --- late data --------------------------------------------------------------------------------------------


def reader(flow: FlowStone) -> FreshnessReader:
    parts = flow.parts
    return FreshnessReader(flow.graph, parts.store.catalog, parts.store.notifications, note=True)


def test_when_data_without_partitions_are_late() -> None:
    @asset(fresh_within=3600)
    def stock(): ...

    with FlowStone.for_testing([stock]) as flow:
        now = datetime.now(UTC)
        assert not reader(flow).read(["stock"], now)["stock"].is_late
        empty = reader(flow).read(["stock"], now + timedelta(hours=2))["stock"]
        assert (empty.is_late, empty.data_at) == (True, None)
        flow.materialize("stock")
        now = datetime.now(UTC)
        assert not reader(flow).read(["stock"], now)["stock"].is_late
        assert reader(flow).read(["stock"], now + timedelta(hours=2))["stock"].is_late
        assert flow.insights.freshness()[0].state == "ok"
        assert flow.insights.freshness(stock) == flow.insights.freshness("stock") == flow.insights.freshness()
        with pytest.raises(UnknownAssetError, match="Did you mean 'stock'"):
            flow.insights.freshness("stok")


def test_when_data_with_static_partitions_are_late() -> None:
    """dagster#15852: their newest commit decides."""

    @asset(fresh_within=3600, partitions=StaticPartitions(["eu", "us"]))
    def stock(context): ...

    with FlowStone.for_testing([stock]) as flow:
        flow.materialize("stock", partition="us")
        now = datetime.now(UTC)
        assert [reader(flow).read(["stock"], now + timedelta(hours=n))["stock"].is_late for n in (0, 2)] == [
            False,
            True,
        ]


@pytest.mark.parametrize(
    ("committed", "at", "late"),
    [
        ("2024-01-05", datetime(2024, 1, 7, 1, tzinfo=UTC), False),
        ("2024-01-05", datetime(2024, 1, 7, 3, tzinfo=UTC), True),
        ("2024-01-06", datetime(2024, 1, 7, 3, tzinfo=UTC), False),
        ("2024-01-02", datetime(2024, 1, 5, 1, tzinfo=UTC), True),
        ("2024-01-01", datetime(2023, 1, 5, 1, tzinfo=UTC), False),  # nothing can be there yet
    ],
)
def test_when_data_with_days_are_late(committed: str, at: datetime, late: bool) -> None:
    """By the end of the newest committed day, not by when it was committed: a backfill makes nothing fresh."""

    @asset(fresh_within=timedelta(hours=26), partitions=DailyPartitions(start="2024-01-01"))
    def stock(context): ...

    with FlowStone.for_testing([stock]) as flow:
        flow.materialize("stock", partition=date.fromisoformat(committed))
        assert reader(flow).read(["stock"], at)["stock"].is_late is late
        assert flow.parts.store.catalog.current([("stock", encode_partition(date.fromisoformat(committed)))])


def test_many_assets_are_one_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers ask every 15 seconds, and the first page with each of its changes."""

    def stock(context): ...

    days = DailyPartitions(start="2020-01-01")
    assets = [asset(name=f"a{n}", partitions=days, fresh_within=timedelta(days=2))(stock) for n in range(20)]
    now = datetime(2024, 1, 10, 5, tzinfo=UTC)
    with FlowStone.for_testing(assets) as flow:
        for n in range(10):
            flow.materialize(f"a{n}", partition=date(2024, 1, 9 - n % 5))
        catalog, questions = flow.parts.store.catalog, []
        current = catalog.current
        monkeypatch.setattr(catalog, "current", lambda targets: questions.append(len(targets)) or current(targets))
        found = reader(flow).read([one.name for one in assets], now)
    assert {name: one.data_at for name, one in found.items() if one.data_at} == {
        f"a{n}": datetime(2024, 1, 10 - n % 5, tzinfo=UTC) for n in range(10)
    }
    assert questions == [20, 18 * 50]  # and nothing further back for those that have no data at all


def test_the_newest_of_many_partitions_is_found() -> None:
    @asset(fresh_within=timedelta(days=2000), partitions=DailyPartitions(start="2020-01-01"))
    def stock(context): ...

    with FlowStone.for_testing([stock]) as flow:
        flow.materialize("stock", partition=date(2020, 3, 1))
        found = reader(flow).read(["stock"], datetime(2024, 1, 1, tzinfo=UTC))["stock"]
        assert (found.data_at, found.is_late) == (datetime(2020, 3, 2, tzinfo=UTC), False)


def test_the_last_of_all_partitions_is_never_late() -> None:
    """Nothing newer can come: a closed year would be late for good."""
    year = DailyPartitions(start="2024-12-30", end="2024-12-31")

    @asset(fresh_within=timedelta(hours=26), partitions=year)
    def stock(context): ...

    at = datetime(2026, 1, 1, tzinfo=UTC)
    with FlowStone.for_testing([stock]) as flow:
        flow.materialize("stock", partition=date(2024, 12, 30))
        assert reader(flow).read(["stock"], at)["stock"].is_late
        flow.materialize("stock", partition=date(2024, 12, 31))
        assert not reader(flow).read(["stock"], at)["stock"].is_late


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"fresh_within": 0}, "more than 0 seconds"),
        ({"fresh_within": "1 day"}, "more than 0 seconds"),
        ({"fresh_within": timedelta(days=-1)}, "more than 0 seconds"),
        (
            {"fresh_within": timedelta(hours=24), "partitions": DailyPartitions(start="2024-01-01")},
            "a partition covers 24.0 hours",
        ),
    ],
)
def test_what_cannot_be_fresh_is_refused_early(options: dict[str, Any], says: str) -> None:
    with pytest.raises(DefinitionError, match=says):

        @asset(**options)
        def stock(context): ...


def test_late_data_are_a_message_and_so_is_their_end(sender: Collected) -> None:
    @asset(fresh_within=0.05)
    def stock(): ...

    with app(stock, notify=Notify(to=sender, on=["late", "recovered"], selection="stock")) as flow:
        assert wait_until(lambda: flow.notifications.deliver() == 1, timeout_seconds=10)
        assert "stock is late: it has no data since" in sender.subjects[0]
    assert flow.notifications.freshness("stock")[0].is_late


# --- delivering -------------------------------------------------------------------------------------------


def test_a_sender_that_fails_is_tried_again_and_harms_nothing(
    sender: Collected, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender.problems = [ConnectionError("https://me:secret@example.com is away"), SystemExit(1)]
    monkeypatch.setattr("flowstone.engine.notifications._POLL_SECONDS", 0.02)
    with app(orders, notify=Notify(to=sender, on="failed")) as flow:
        flow.notifications._parts.delivery._pause = 0.01
        with pytest.raises(ValueError, match="no rows"):
            flow.materialize("orders")
        assert wait_until(lambda: len(sender.messages) == 1, timeout_seconds=10)
        assert wait_until(lambda: flow.notifications.list()[0].state is NotificationState.SENT, timeout_seconds=10)
        (one,) = flow.notifications.list()
        assert (one.attempts, one.error) == (3, None)


def test_what_is_given_up_is_audited_and_can_be_sent(
    sender: Collected, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """dagster#18130: a sender that failed for weeks, and nobody noticed."""
    sender.problems = [OSError("refused password=hunter2hunter2")]
    events: list[str] = []
    telemetry.attach("test", ["notification.*"], lambda name, measured, about: events.append(name))
    try:
        with app(orders, notify=Notify(to=sender, on="failed")) as flow:
            flow.notifications._parts.delivery._max_attempts = 1
            with pytest.raises(ValueError, match="no rows"):
                flow.materialize("orders")
            (one,) = flow.notifications.list(state="given_up")
            assert one.error == "OSError: refused password=***"
            assert "is given up after 1 tries" in caplog.text
            assert "hunter2" not in caplog.text
            assert [line.action for line in flow.audit.latest(subject=f"notification:{one.id}")] == [
                "notification.given_up"
            ]
            assert flow.notifications.retry() == [one.id]
            assert flow.notifications.deliver() == 1
            with pytest.raises(OptionsError, match="was sent already"):
                flow.notifications.retry(one.id)
            assert flow.notifications.retry() == []
    finally:
        telemetry.detach("test")
    assert events == ["notification.given_up", "notification.sent"]


def test_a_sender_that_hangs_holds_up_no_other(sender: Collected) -> None:
    hangs, go_on = threading.Event(), threading.Event()

    def hang(message: Message) -> None:
        hangs.set()
        go_on.wait(20)

    with app(orders, notify=[Notify(to=hang, name="hangs"), Notify(to=sender)]) as flow:
        delivery = flow.notifications._parts.delivery
        store = flow.parts.store

        def fail() -> None:
            with pytest.raises(ValueError, match="no rows"):
                flow.materialize("orders")

        first = threading.Thread(target=fail)
        first.start()
        assert wait_until(lambda: len(sender.messages) == 1, timeout_seconds=10)
        assert hangs.wait(10)  # each rule has a thread of its own, and either may be the first
        assert store.notifications.claim(["hangs"], lease_seconds=60) == []
        go_on.set()
        first.join(20)
        assert wait_until(lambda: store.notifications.pending(["hangs"]) == 0, timeout_seconds=10)
        assert delivery.counts == {"sent": 2}


def test_a_sender_that_hangs_for_good_is_tried_again_by_the_only_process(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """ntop/ntopng#10905: after one connection that stalled nothing was sent any more, and nothing was logged."""
    monkeypatch.setattr("flowstone.engine.notifications._POLL_SECONDS", 0.02)
    go_on, tries = threading.Event(), []

    def send(message: Message) -> None:
        tries.append(message.id)
        if len(tries) < 3:
            go_on.wait(30)

    with app(orders, notify=Notify(to=send, on="failed", name="ops")) as flow:
        delivery = flow.notifications._parts.delivery
        delivery._timeout = delivery._lease = 0.1
        delivery.start()
        with pytest.raises(ValueError, match="no rows"):
            flow.materialize("orders")
        assert wait_until(lambda: flow.notifications.list()[0].state is NotificationState.SENT, timeout_seconds=10)
        assert tries == [tries[0]] * 3
        assert "has not come back for 0.1 s" in caplog.text
        go_on.set()
        assert wait_until(lambda: delivery._hanging["ops"] == 0, timeout_seconds=10)
        assert [one.state for one in flow.notifications.list()] == [NotificationState.SENT]


def test_what_was_not_sent_is_tried_once_more_at_the_end(
    sender: Collected, caplog: pytest.LogCaptureFixture
) -> None:
    sender.problems = [OSError("away")]
    with app(orders, notify=Notify(to=sender, on="failed")) as flow, pytest.raises(ValueError, match="no rows"):
        flow.materialize("orders")
    assert len(sender.messages) == 1
    sender.problems = [OSError("away")] * 9
    with app(orders, notify=Notify(to=sender, on="failed")) as flow, pytest.raises(ValueError, match="no rows"):
        flow.materialize("orders")
    assert "1 notifications were not sent, and are gone" in caplog.text


def test_an_app_for_tests_sends_nothing(sender: Collected) -> None:
    with FlowStone.for_testing([orders], notify=[Notify(to=sender, on="failed")]) as flow:
        with pytest.raises(ValueError, match="no rows"):
            flow.materialize("orders")
        assert flow.notifications.deliver() == 0
        assert [flow.notifications.message(one).subject for one in flow.notifications.list()] == [
            "orders failed: ValueError: no rows"
        ]
    assert sender.messages == []


def test_a_test_message(sender: Collected) -> None:
    sender.problems = [OSError("away")]
    with app(orders, notify=[Notify(to=sender, name="a"), Notify(to=sender, name="b")]) as flow:
        assert [(one.rule, one.error) for one in flow.notifications.test()] == [
            ("a", "OSError: away"),
            ("b", None),
        ]
        assert flow.notifications.list() == []
        with pytest.raises(OptionsError, match="Rules: a, b"):
            flow.notifications.test("c")
    assert "this is a test" in sender.subjects[0]


def test_a_process_without_rules_has_no_thread(sender: Collected) -> None:
    with app(orders, notify=[]) as flow:
        assert flow.parts.delivery is None
        assert not flow.parts.notifications.in_use


# --- declaring --------------------------------------------------------------------------------------------


def test_names_of_rules(sender: Collected) -> None:
    def alarm(message: Message) -> None: ...

    rules = [Notify(to=[sender, alarm]), Notify(to=alarm), Notify(to=sender, name="pager")]
    with app(orders, notify=rules) as flow:
        assert flow.notifications.senders() == {
            "collected": "collected",
            "alarm": "alarm",
            "alarm-2": "alarm",
            "pager": "collected",
        }


async def _coroutine(message: Message) -> None: ...


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: Notify(to=[]), DefinitionError, "give a sender"),
        (lambda: Notify(to=5), DefinitionError, "give a sender"),
        (lambda: Notify(to=None), DefinitionError, "give a sender"),
        (lambda: Notify(to=Collected), DefinitionError, "make one"),
        (lambda: Notify(to=print, on="fail"), DefinitionError, "Did you mean 'failed'"),
        (lambda: Notify(to=print, on=[]), DefinitionError, "at least one event"),
        (lambda: Notify(to=print, on=5), DefinitionError, "events by name"),
        (lambda: Notify(to=print, on=["failed", None]), DefinitionError, "no such event"),
        (lambda: Notify(to=print, on="deadline"), DefinitionError, "deadline=timedelta"),
        (lambda: Notify(to=print, on="failed", deadline=60), DefinitionError, 'name "deadline"'),
        (lambda: Notify(to=print, deadline=0), DefinitionError, "timedelta"),
        (lambda: Notify(to=print, wait=-1), DefinitionError, "timedelta"),
        (lambda: Notify(to=print, name=""), DefinitionError, "line of text"),
        (lambda: Notify(to=print, name="a\nb"), DefinitionError, "line of text"),
        (lambda: Notify(to=print, events="failed"), DefinitionError, "no option"),
        (lambda: app(orders, notify=[print]), ConfigurationError, "Notify"),
        (lambda: app(orders, notify=Notify(to="nobody")), ConfigurationError, "flowstone.notifiers"),
        (lambda: app(orders, notify=Notify(to=_coroutine)), ConfigurationError, "plain function"),
        (lambda: app(orders, notify=Notify(to=print, selection="tag:none")), SelectionError, "none"),
        (lambda: FlowStone([orders], notify=Notify(to=print)), ConfigurationError, "give a list"),
        (lambda: FlowStone([orders], notify="ops"), ConfigurationError, "give a list"),
    ],
)
def test_what_cannot_notify_is_refused_early(make: Callable[[], Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        make()


class _Point:
    def __init__(self, name: str, made: Any) -> None:
        self.name, self.value, self._made = name, f"package:{name}", made

    def load(self) -> Any:
        if isinstance(self._made, BaseException):
            raise self._made
        return self._made


def test_senders_of_packages(sender: Collected, monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        *(_Point("teams", lambda: sender), _Point("ready", sender), _Point("class", Collected)),
        *(_Point("broken", ImportError("no such module")), _Point("none", lambda: 5)),
    ]
    monkeypatch.setattr("flowstone.app.notifications.entry_points", lambda group: points)
    rules = [Notify(to=["teams", "ready", "class"], on="failed")]
    with app(orders, notify=rules) as flow, pytest.raises(ValueError, match="no rows"):
        flow.materialize("orders")
    assert len(sender.messages) == 2
    for name, says in (("broken", "no such module"), ("none", "no send"), ("teamz", "Did you mean 'teams'")):
        with pytest.raises(ConfigurationError, match=says):
            app(orders, notify=Notify(to=name))


def test_delivery_without_senders_claims_nothing() -> None:
    with FlowStone.for_testing([orders]) as flow:
        assert Delivery(flow.parts.store.notifications, {}, lambda one: None).deliver() == 0  # type: ignore[arg-type, return-value]
