"""Pages stay fresh in a real browser: over eight tabs, while a person is at work on them, over a restart."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.browser.harness import Visit, serving
from tests.faults.test_lost_database import crash

from flowstone import FlowStone, asset
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.embedded.server import EmbeddedPostgres
from flowstone.stores.postgres.store import upgrade
from flowstone.testing.postgres import remove_server
from flowstone.web.application import Dashboard, create_app
from flowstone.web.registry import Person, Role

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser]

COMMITTED = "document.querySelectorAll('#assets .state.good').length"


@asset
def numbers() -> int:
    return 1


@asset
def doubled(numbers: int) -> int:
    return 2 * numbers


@pytest.fixture
def flow() -> Iterator[FlowStone]:
    with FlowStone.for_testing([numbers, doubled]) as opened:
        yield opened


@pytest.fixture
def dashboard(flow: FlowStone) -> Dashboard:
    return create_app(flow, identify=lambda request: Person("ann", Role.ADMIN))


def connected(dashboard: Dashboard, page: Page, number: int) -> None:
    for _ in range(100):
        if dashboard.live.watchers == number:
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"{dashboard.live.watchers} streams, not {number}")


def until(page: Page, expression: str, within: int) -> None:
    """Wait for something of a page; the security policy lets no `wait_for_function` evaluate a text there."""
    for _ in range(within // 50):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"not within {within} ms: {expression}")


def is_shown(page: Page, number: int, within: int = 4000) -> None:
    until(page, f"{COMMITTED} === {number}", within)


def test_a_change_is_shown_in_eight_tabs_over_one_stream(
    browser: Browser, flow: FlowStone, dashboard: Dashboard
) -> None:
    """dagster#23500: a connection, or a poll, for each tab. Browsers allow six to a host."""
    with serving(dashboard) as address, Visit(browser, address) as visit:
        tabs = [visit.page, *(visit.tab() for _ in range(7))]
        for tab in tabs:
            visit.go("/assets", tab)
        connected(dashboard, tabs[-1], 1)
        flow.materialize("numbers")
        for tab in tabs:
            is_shown(tab, 1)
        visit.check()


def test_what_a_person_does_is_left_alone(browser: Browser, flow: FlowStone, dashboard: Dashboard) -> None:
    """dagster#12546: a refresh threw focus, selection and open parts away."""
    with serving(dashboard) as address, Visit(browser, address) as visit:
        page = visit.go("/assets")
        connected(dashboard, page, 1)
        page.get_by_role("link", name="doubled").focus()
        flow.materialize("numbers")
        is_shown(page, 1)
        assert page.evaluate("document.activeElement.textContent") == "doubled"
        page.evaluate(
            "getSelection().selectAllChildren([...document.querySelectorAll('#assets a')].find("
            "(one) => one.textContent === 'doubled'))"
        )
        flow.materialize("doubled")
        page.wait_for_timeout(1500)
        assert page.evaluate("getSelection().toString()") == "doubled"
        page.evaluate("getSelection().removeAllRanges()")
        is_shown(page, 2, within=8000)
        visit.check()


def hide(page: Page, hidden: bool) -> None:
    page.evaluate(
        "(hidden) => { Object.defineProperty(document, 'hidden', {get: () => hidden, configurable: true});"
        "document.dispatchEvent(new Event('visibilitychange')); }",
        hidden,
    )


def test_a_hidden_tab_does_nothing(browser: Browser, flow: FlowStone, dashboard: Dashboard) -> None:
    with serving(dashboard) as address, Visit(browser, address) as visit:
        requests: list[str] = []
        answered: list[str] = []
        visit.page.on("request", lambda request: requests.append(request.url))
        visit.page.on("response", lambda response: answered.append(response.url))
        page = visit.go("/assets")
        connected(dashboard, page, 1)
        hide(page, True)
        connected(dashboard, page, 0)
        # what the stream's first word made it read may be under way
        for _ in range(100):
            if requests.count(page.url) == answered.count(page.url):
                break
            page.wait_for_timeout(50)
        assert requests.count(page.url) == answered.count(page.url)
        requests.clear()
        flow.materialize("numbers")
        page.wait_for_timeout(1500)
        assert requests == []
        assert page.evaluate(COMMITTED) == 0
        hide(page, False)
        is_shown(page, 1)
        connected(dashboard, page, 1)


def test_a_restart_of_the_server_is_seen_and_survived(
    browser: Browser, flow: FlowStone, dashboard: Dashboard
) -> None:
    with serving(dashboard) as address:
        port = int(address.rpartition(":")[2])
        visit = Visit(browser, address)
        page = visit.go("/assets")
        connected(dashboard, page, 1)
    flow.materialize("numbers")
    until(page, "!document.getElementById('stale').hidden", 20_000)
    assert "s old" in page.inner_text("#stale")
    with serving(dashboard, port=port):
        is_shown(page, 1, within=15_000)
        until(page, "document.getElementById('stale').hidden", 10_000)
    visit.context.close()


def test_a_button_asks_in_a_dialog(browser: Browser, flow: FlowStone, dashboard: Dashboard) -> None:
    flow.materialize("numbers")
    with serving(dashboard) as address, Visit(browser, address) as visit:
        page = visit.go("/assets")
        button = page.locator("form[data-confirm] button").first
        button.click()
        dialog = page.get_by_role("dialog")
        dialog.wait_for()
        assert page.url.endswith("/assets")
        page.keyboard.press("Escape")
        page.wait_for_selector("dialog", state="detached")
        assert page.evaluate("document.activeElement.tagName") == "BUTTON", "focus is back where it was"
        visit.check()


def test_keys_go_to_pages_and_can_be_switched_off(browser: Browser, dashboard: Dashboard) -> None:
    with serving(dashboard) as address, Visit(browser, address) as visit:
        page = visit.go("/about")
        page.keyboard.press("?")
        assert "g a: Assets" in page.get_by_role("dialog").inner_text()
        page.keyboard.press("Escape")
        page.wait_for_selector("dialog", state="detached")
        page.keyboard.press("g")
        page.keyboard.press("a")
        page.wait_for_url("**/assets")
        page.keyboard.press("/")
        assert page.evaluate("document.activeElement.id") == "search"
        visit.go("/about")
        page.locator(".menu summary").click()
        page.get_by_label("Single-key shortcuts").uncheck()
        page.get_by_role("button", name="Save").click()
        page.wait_for_load_state()
        page.keyboard.press("?")
        assert page.get_by_role("dialog").count() == 0
        page.keyboard.press("Control+k")
        assert page.evaluate("document.activeElement.id") == "search"
        visit.check()


def test_times_are_those_of_the_reader(browser: Browser, flow: FlowStone, dashboard: Dashboard) -> None:
    """The first visit takes the zone of the browser; without scripts the menu has it."""
    for zone, written in (("Asia/Kathmandu", "+05:45"), ("America/St_Johns", "-0")):
        with serving(dashboard) as address, Visit(browser, address, zone=zone) as visit:
            visit.go("/about")
            page = visit.go("/about")
            page.locator(".menu summary").click()
            shown = page.locator(".menu").inner_text()
            assert zone[-5:] in shown, "Chromium says Katmandu"
            assert written in shown


@pytest.mark.slow
def test_a_restart_of_the_database_is_seen_and_survived(browser: Browser) -> None:
    """While it is away the page stands and says how old it is; then it goes on by itself."""
    # not under pytest's directory: the next session takes its rights away from the server's user
    directory = Path(tempfile.mkdtemp(prefix="flowstone-browser-"))
    server = EmbeddedPostgres(directory)
    try:
        upgrade(Database(server.start()))
        with FlowStone([numbers, doubled], database_url=server.start()) as flow:
            flow.materialize("numbers", executor="sync")
            dashboard = create_app(flow, identify=lambda request: Person("ann", Role.ADMIN))
            with serving(dashboard) as address:
                visit = Visit(browser, address)
                page = visit.go("/assets")
                connected(dashboard, page, 1)
                is_shown(page, 1)
                crash(server)
                until(page, "!document.getElementById('stale').hidden", 30_000)
                assert page.evaluate(COMMITTED) == 1, "what was known stays"
                server.start()
                until(page, "document.getElementById('stale').hidden", 30_000)
                flow.materialize("doubled", executor="sync")
                is_shown(page, 2, within=15_000)
                visit.context.close()
    finally:
        server.stop()
        remove_server(directory)
