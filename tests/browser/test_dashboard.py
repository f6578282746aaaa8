"""The dashboard in a real browser: every page, both themes, a phone, live updates, without scripts.

One server and one browser for all of it. Names are hostile ones, in a real database; its clock is not in UTC.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.requests import Request
from tests.browser.harness import NARROW, Visit, axe_findings, serving
from tests.scale.app import S, make_flow
from tests.scale.template import template
from tests.web import hostile
from tests.web.visits import addresses

from flowstone import FlowStone
from flowstone.stores.postgres.database import Database
from flowstone.testing.postgres import TemporaryServer
from flowstone.web.application import Dashboard, create_app
from flowstone.web.registry import Person, Role, url

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser
SECONDS = 10.0
"""A change is on screen after two; a machine that does something else gets more."""


def identify(_: Request) -> Person:
    return Person("ann", Role.ADMIN)


class Served:
    """A dashboard that is served.

    Args:
        address: where.
        flow: the app.
        dashboard: its dashboard.
    """

    def __init__(self, address: str, flow: FlowStone, dashboard: Dashboard) -> None:
        self.address = address
        self.flow = flow
        self.dashboard = dashboard


@pytest.fixture(scope="module")
def served(start_server: Callable[[str], TemporaryServer]) -> Iterator[Served]:
    with start_server("embedded").database() as dsn:
        with Database(dsn).dedicated() as connection:
            name = urlsplit(dsn).path.lstrip("/")
            connection.execute(f"ALTER DATABASE {name} SET timezone TO 'America/St_Johns'")  # type: ignore[arg-type]
        with hostile.make_flow(dsn) as flow:
            hostile.fill(flow)
            dashboard = create_app(flow, identify=identify)
            with serving(dashboard) as address:
                yield Served(address, flow, dashboard)
            hostile.settle(flow)


@pytest.fixture(scope="module")
def scaled(
    start_server: Callable[[str], TemporaryServer], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """The history of scale S: what pictures and the phone show."""
    server = start_server("embedded")
    with server.clone(template(server, S)) as dsn, make_flow(S, dsn, str(tmp_path_factory.mktemp("s"))) as flow:
        dashboard = create_app(flow, identify=lambda _: Person("ann", Role.OPERATOR))
        with serving(dashboard) as address:
            yield Served(address, flow, dashboard)


def pages_of(served: Served) -> list[str]:
    """Return the addresses that lead to a page; others are downloads."""
    with httpx.Client(base_url=served.address) as client:
        answers = {one: client.get(one) for one in addresses(served.flow)}
    return [one for one, answer in answers.items() if "html" in answer.headers.get("content-type", "")]


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_page_is_clean_and_accessible(browser: Browser, served: Served, axe: str, theme: str) -> None:
    """No violation of the policy, nothing on the console, nothing that axe finds against WCAG 2.2 AA."""
    found = {}
    with Visit(browser, served.address, theme=theme) as visit:
        for address in pages_of(served):
            page = visit.go(address)
            if problems := axe_findings(page, axe):
                found[address] = problems
            assert visit.violations() == [], address
        assert visit.problems == []
    assert found == {}


def test_every_page_fits_on_a_phone(browser: Browser, served: Served) -> None:
    """WCAG 1.4.10: nothing scrolls sideways at 320 pixels, whatever the names are."""
    wide = {}
    with Visit(browser, served.address, size=NARROW) as visit:
        for address in pages_of(served):
            visit.go(address)
            if pixels := visit.overflow():
                wide[address] = pixels
    assert wide == {}


def test_states_are_read_without_colour(browser: Browser, served: Served) -> None:
    """Printed in grey: each state has a word and a sign."""
    with Visit(browser, served.address) as visit:
        for address in pages_of(served):
            page = visit.go(address)
            states = page.eval_on_selector_all(".state", "found => found.map(one => one.textContent)")
            assert [one for one in states if not re.search(r"\w", one)] == [], address
            has_sign = "found => found.map(one => !!one.querySelector('[aria-hidden]'))"
            signs = page.eval_on_selector_all(".state", has_sign)
            assert all(signs), address


def shown_as_paused(page: Page) -> bool:
    return "paused" in page.inner_text("#about")


def test_a_change_is_on_screen_in_every_tab(browser: Browser, served: Served) -> None:
    """Eight tabs of one browser: one stream, and the change is in all of them (browsers allow six connections)."""
    name = hostile.NAMES[7]
    path = url("automation/details", kind="schedule", name=name)
    with Visit(browser, served.address) as visit:
        tabs = [visit.page, *(visit.tab() for _ in range(7))]
        for tab in tabs:
            visit.go(path, tab)
        assert not any(shown_as_paused(tab) for tab in tabs)
        until(lambda: served.dashboard.live.watchers >= 1, "nobody listens")
        served.flow.schedules.pause(name)
        for tab in tabs:
            until(lambda tab=tab: shown_as_paused(tab), "a tab does not show the change")  # type: ignore[misc]
        assert served.dashboard.live.watchers <= 2
        served.flow.schedules.resume(name)
        until(lambda: not shown_as_paused(tabs[-1]), "a tab does not show the second change")
        visit.check()


def test_a_hidden_tab_costs_nothing_and_is_right_when_it_is_seen_again(browser: Browser, served: Served) -> None:
    name = hostile.NAMES[6]
    with Visit(browser, served.address) as visit:
        page = visit.go(url("automation/details", kind="schedule", name=name))
        until(lambda: served.dashboard.live.watchers == 1, "nobody listens")
        _hide(page, hidden=True)
        until(lambda: served.dashboard.live.watchers == 0, "a hidden tab listens")
        served.flow.schedules.pause(name)
        _hide(page, hidden=False)
        until(lambda: shown_as_paused(page), "what happened meanwhile is not shown")
        served.flow.schedules.resume(name)
        until(lambda: not shown_as_paused(page), "it does not listen again")


def _hide(page: Page, *, hidden: bool) -> None:
    page.evaluate(
        """hidden => {
            Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});
            const state = hidden ? 'hidden' : 'visible';
            Object.defineProperty(document, 'visibilityState', {value: state, configurable: true});
            document.dispatchEvent(new Event('visibilitychange'));
        }""",
        hidden,
    )


def test_back_restores_what_was_chosen(browser: Browser, served: Served) -> None:
    """airflow#66933, dagster#12546: filters lie in the address, so that Back, a bookmark and a link have them."""
    with Visit(browser, served.address) as visit:
        page = visit.go("/automation")
        page.select_option("select[name=kind]", "sensor")
        page.fill("form.filters input[name=text]", "rocket")
        page.press("form.filters input[name=text]", "Enter")
        page.wait_for_url("**text=rocket**")
        assert page.locator("tbody tr").count() == 1
        page.click("tbody tr a")
        page.wait_for_load_state()
        assert "rocket" in page.inner_text("h1")
        page.go_back()
        page.wait_for_load_state()
        assert page.locator("tbody tr").count() == 1
        assert page.input_value("select[name=kind]") == "sensor"
        assert page.input_value("form.filters input[name=text]") == "rocket"


def test_everything_works_without_scripts(browser: Browser, served: Served) -> None:
    name = hostile.NAMES[9]
    with Visit(browser, served.address, scripts=False) as visit:
        page = visit.go(url("automation", text=name))
        page.click("tbody tr th a")
        page.click("#about button:has-text('Pause')")
        assert "Pause schedule" in page.inner_text("h1"), "it asks first"
        page.click("main button.danger, main button.primary")
        assert "is paused now" in page.inner_text("#done")
        assert served.flow.schedules.get(name).paused
        page.click("#about button:has-text('Resume')")
        assert not served.flow.schedules.get(name).paused


@pytest.mark.parametrize(("zone", "offset"), [("Asia/Kathmandu", "+05:45"), ("America/St_Johns", "-03:30")])
def test_times_are_in_the_zone_of_the_reader(browser: Browser, served: Served, zone: str, offset: str) -> None:
    """The database stands in St. John's and the server in UTC; instants are the same in all of them."""
    with Visit(browser, served.address) as visit:
        cookie = {"name": "flowstone_zone", "value": zone.replace("/", "%2F"), "url": served.address}
        visit.context.add_cookies([cookie])  # type: ignore[list-item]
        page = visit.go("/audit")
        titles = page.eval_on_selector_all("time", "found => found.map(one => one.title)")
        assert titles
        assert all(zone in one and (offset in one or "-02:30" in one) for one in titles), titles[:3]
        instants = page.eval_on_selector_all("time", "found => found.map(one => one.dateTime)")
        recorded = {one.at.timestamp() for one in served.flow.audit.latest(limit=200)}
        shown = {page.evaluate("at => new Date(at).getTime() / 1000", at) for at in instants}
        assert all(any(abs(one - at) < 0.01 for at in recorded) for one in shown)


def test_from_a_failed_run_to_its_error_in_two_taps_on_a_phone(browser: Browser, scaled: Served) -> None:
    with Visit(browser, scaled.address, size=NARROW) as visit:
        page = visit.go("/")
        text = page.inner_text("main")
        if "ConnectionError" not in text and "ValueError" not in text:
            page.locator(
                "main a[href*='/step?'], main a[href*='/partition?'], main a[href*='/run?']"
            ).first.click()
            page.wait_for_load_state()
        if not re.search(r"Error: ", page.inner_text("main")):
            page.locator("main a[href*='/step?']").first.click()
            page.wait_for_load_state()
        assert re.search(r"Error: ", page.inner_text("main")), "the text of the error"
        visit.check()


PICTURED = {
    "overview": "/",
    "automation": "/automation",
    "approvals": "/approvals",
    "checks": "/checks",
    "audit": "/audit",
    "assets": "/assets",
    "graph": "/graph",
    "asset": url("asset", name="events"),
    "runs": "/runs",
    "run": url("run", id="nightly-000003"),
    "queues": "/queues",
}


@pytest.mark.parametrize("name", list(PICTURED))
def test_pictures_for_the_docs(
    browser: Browser, scaled: Served, picture: Callable[[Page, str], Path], name: str
) -> None:
    """Wide in light, narrow in dark; FLOWSTONE_PICTURES=1 writes those of docs/dashboard.md anew."""
    from flowstone.web.registry import pages

    if PICTURED[name].partition("?")[0] not in pages():
        pytest.skip("no such page")
    for suffix, size, theme in (("wide", (1440, 900), "light"), ("narrow", NARROW, "dark")):
        with Visit(browser, scaled.address, size=size, theme=theme) as visit:
            taken = picture(visit.go(PICTURED[name]), f"{name}-{suffix}")
            assert 1_000 < taken.stat().st_size < 150_000
            visit.check()
