"""The pages of assets in a browser: walking, zooming, coming back; on a phone, and without scripts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from tests.browser.harness import NARROW, WIDE, Visit, axe_findings, serving
from tests.core.drawn_graphs import make

from flowstone import FlowStone, StaticPartitions, asset
from flowstone.web.application import create_app
from flowstone.web.registry import Person, Role

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser]


def boom(context) -> int:
    if context.partition == "us":
        raise ValueError("late data")
    return 1


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    names = [f"{kind}_{what}" for kind in ("raw", "clean", "fact") for what in ("orders", "customers", "stores")]
    several = [
        make(name, {names[at - 3]} if at > 2 else set(), group=name.split("_")[0]) for at, name in enumerate(names)
    ]
    by_region = asset(name="by_region", partitions=StaticPartitions(["eu", "us", "asia"]), deps=["fact_orders"])(
        boom
    )
    report = make("a report of " + "x" * 160 + " <script>", {"by_region", "fact_stores"})
    with FlowStone.for_testing([*several, by_region, report]) as flow:
        for name in names:
            flow.materialize(name)
        for partition in ("eu", "us"):
            with suppress(ValueError):
                flow.materialize("by_region", partition=partition)
        app = create_app(flow, identify=lambda request: Person("ann", Role.OPERATOR))
        with serving(app) as found:
            yield found


def test_one_walks_the_graph_by_keyboard(browser: Browser, address: str) -> None:
    with Visit(browser, address) as visit:
        page = visit.go("/graph")
        page.locator("[data-node] >> nth=0").focus()
        focused = "document.activeElement.getAttribute('aria-label').split(' ')[0]"
        first = page.evaluate(focused)
        assert first.startswith("raw_")
        page.keyboard.press("ArrowRight")
        assert page.evaluate(focused) == first.replace("raw", "clean")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowLeft")
        assert page.evaluate(focused) == first
        page.keyboard.press("ArrowDown")
        assert page.evaluate(focused).startswith("raw_")
        assert page.evaluate("document.querySelectorAll('[data-node][tabindex=\"0\"]').length") == 1
        here = page.evaluate(focused)
        page.keyboard.press("Enter")
        page.wait_for_load_state()
        assert page.locator("#node h2").inner_text() == here
        visit.check()


def test_zoom_and_place_are_kept(browser: Browser, address: str) -> None:
    """dagster#27893, airflow#16359: opening a group or choosing a node threw the place and the size away."""
    with Visit(browser, address, size=(800, 500)) as visit:
        page = visit.go("/graph")
        page.get_by_title("Larger").click()
        page.get_by_title("Larger").click()
        page.evaluate("document.getElementById('picture').scrollTo(200, 4)")
        page.wait_for_function(
            "sessionStorage.length && JSON.parse(Object.values(sessionStorage)[0]).left === 200"
        )
        wide = page.evaluate("document.querySelector('svg.graph').getBoundingClientRect().width")
        visit.go("/graph?closed=raw")
        visit.go("/graph?node=fact_orders")
        assert page.evaluate("document.querySelector('svg.graph').getBoundingClientRect().width") == wide
        assert page.evaluate("[picture.scrollLeft, picture.scrollTop]") == [200, 4]
        page.evaluate("""() => { const kept = picture.innerHTML; picture.innerHTML = kept; }""")
        page.wait_for_function(f"document.querySelector('svg.graph').getBoundingClientRect().width === {wide}")
        page.locator("#picture").focus()
        page.keyboard.press("0")
        assert page.evaluate("document.querySelector('svg.graph').getBoundingClientRect().width") <= 800
        visit.check()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("path", ["/assets", "/graph", "/graph?node=by_region", "/graph?view=table"])
def test_pages_are_accessible_and_fit(browser: Browser, address: str, axe: str, theme: str, path: str) -> None:
    for size in (WIDE, NARROW):
        with Visit(browser, address, size=size, theme=theme) as visit:
            page = visit.go(path)
            assert axe_findings(page, axe) == []
            assert visit.overflow() <= 0
            assert page.evaluate("document.querySelectorAll('*').length") <= 1500
            visit.check()


def test_without_scripts(browser: Browser, address: str) -> None:
    with Visit(browser, address, scripts=False) as visit:
        page = visit.go("/graph")
        page.locator("[data-node] >> nth=1").click()
        page.wait_for_load_state()
        assert page.locator("#node h2").count() == 1
        visit.go("/assets?select=raw")
        page.get_by_label("Selection").fill("+clean_orders")
        page.get_by_role("button", name="Filter").click()
        page.wait_for_load_state()
        assert page.locator("tbody tr").count() == 2


def test_suggestions_go_on_from_the_last_word(browser: Browser, address: str) -> None:
    """dagster#7300: the list of suggestions went away with the first special character."""
    with Visit(browser, address) as visit:
        page = visit.go("/assets")
        field = page.get_by_label("Selection")
        offered = "[...document.querySelectorAll('#suggestions option')].map((one) => one.value)"
        field.press_sequentially("group:raw or 2+ord")
        assert page.evaluate(offered) == [f"group:raw or 2+{kind}_orders" for kind in ("clean", "fact", "raw")]
        field.fill("not (rep")
        assert page.evaluate(offered)[0].startswith('not ("a report of')
        visit.check()


def test_the_graph_prints_whole(browser: Browser, address: str) -> None:
    with Visit(browser, address, size=(700, 500)) as visit:
        page = visit.go("/graph")
        page.emulate_media(media="print")
        width = page.evaluate("document.querySelector('svg.graph').getBoundingClientRect().width")
        assert width <= 700
        assert not page.locator(".zoom").is_visible()
        assert not page.locator("form.filters").is_visible()
