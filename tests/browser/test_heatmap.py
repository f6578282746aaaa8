"""The heat map in a browser: a range is chosen by drag or keyboard, and is text in form and address."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from tests.browser.harness import Visit, serving
from tests.web.test_heatmap import mapped

from flowstone import DailyPartitions, MultiPartitions, StaticPartitions
from flowstone.web import static_files
from flowstone.web.heatmap import heatmap
from flowstone.web.registry import url

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser]

FORM = (
    '<form id="range"><input type="hidden" name="kind" value="days"><input name="first" value="{first}">'
    '<input name="last" value="{last}"><button>Go</button></form>'
)
DEFINITIONS: dict[str, Any] = {
    "days": DailyPartitions(start="2026-01-01"),
    "grid": MultiPartitions(region=StaticPartitions(["eu", "us", "asia"]), tier=StaticPartitions([1, 2, 3])),
    "few": StaticPartitions(["a", "b", "c"]),
}


def page_of(request: Request) -> Response:
    chart = heatmap(
        mapped(DEFINITIONS[request.query_params["kind"]], 4 if request.query_params["kind"] != "few" else 1),
        title="Partitions",
        asset="orders",
        url=url if request.query_params["kind"] != "grid" else None,
        form="range",
    )
    form = FORM.format(**{name: request.query_params.get(name, "") for name in ("first", "last")})
    return HTMLResponse(
        f'<!doctype html><html lang="en"><title>x</title><link rel="icon" href="data:,"><body>{form}{chart}'
        '<script type="module" src="/cells.js"></script></html>'
    )


def script(request: Request) -> Response:
    text = (Path(static_files.__file__).parent / "static" / "cells.js").read_text(encoding="utf-8")
    return PlainTextResponse(text, media_type="text/javascript")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving(Starlette(routes=[Route("/", page_of), Route("/cells.js", script)])) as found:
        yield found


def chosen(page: Page) -> list[str]:
    return [page.locator(f"input[name={name}]").input_value() for name in ("first", "last")]


def cell(page: Page, row: int, column: int) -> tuple[float, float]:
    """Return the middle of a cell on the screen."""
    page.locator("[data-cells]").scroll_into_view_if_needed()
    place = page.evaluate(
        "([row, column]) => { const box = document.querySelector('[data-cells]');"
        " const { left, top } = box.querySelector('svg').getBoundingClientRect();"
        " const { left: x, top: y, size } = box.dataset;"
        " return [left + +x + (column + .5) * size, top + +y + (row + .5) * size]; }",
        [row, column],
    )
    return place[0], place[1]


def test_a_range_of_days_by_drag(browser: Browser, address: str) -> None:
    with Visit(browser, address) as visit:
        page = visit.go("/?kind=days")
        page.mouse.move(*cell(page, 0, 4))
        page.mouse.down()
        page.mouse.move(*cell(page, 1, 2), steps=4)
        page.mouse.up()
        assert chosen(page) == ["2026-01-05", "2026-02-03"]
        assert "first=2026-01-05&last=2026-02-03" in page.url
        assert page.locator(".says").inner_text() == "2026-01-05 to 2026-02-03: 30 cells"
        page.mouse.click(*cell(page, 0, 4))
        assert page.locator(".says").inner_text() == "2026-01-05: failed"
        visit.check()


def test_a_range_by_keyboard(browser: Browser, address: str) -> None:
    with Visit(browser, address) as visit:
        page = visit.go("/?kind=days")
        page.locator("[data-cells]").focus()
        for key in ("Home", "ArrowRight", "ArrowDown", "Shift+ArrowRight", "Shift+ArrowRight"):
            page.keyboard.press(key)
        assert chosen(page) == ["2026-02-02", "2026-02-04"]
        page.keyboard.press("Shift+ArrowUp")
        assert chosen(page) == ["2026-01-04", "2026-02-02"]
        with page.expect_navigation(url="**kind=days&first=2026-01-04&last=2026-02-02"):
            page.keyboard.press("Enter")
        visit.check()


def test_a_range_of_two_dimensions_is_a_rectangle(browser: Browser, address: str) -> None:
    with Visit(browser, address) as visit:
        page = visit.go("/?kind=grid")
        page.mouse.move(*cell(page, 2, 1))
        page.mouse.down()
        page.mouse.move(*cell(page, 1, 2))
        page.mouse.up()
        assert chosen(page) == ["us|2", "asia|3"]
        assert page.locator(".says").inner_text() == "us|2 to asia|3: 4 cells"
        visit.check()


def test_a_range_in_the_address_is_marked_also_when_new_states_come(browser: Browser, address: str) -> None:
    with Visit(browser, address) as visit:
        page = visit.go("/?kind=days&first=2026-01-05&last=2026-01-07")
        assert page.locator(".says").inner_text() == "2026-01-05 to 2026-01-07: 3 cells"
        page.evaluate(
            "() => { const box = document.querySelector('figure'); box.innerHTML = box.innerHTML;"
            " box.querySelector('.chosen')?.remove(); box.querySelector('.says').textContent = '';"
            " box.dispatchEvent(new CustomEvent('replaced', { bubbles: true })); }"
        )
        assert page.locator(".chosen").count() == 1
        assert page.locator(".says").inner_text() == "2026-01-05 to 2026-01-07: 3 cells"
        visit.go("/?kind=days&first=gone&last=gone")
        assert page.locator(".chosen").count() == 0
        visit.check()


def test_few_cells_are_links(browser: Browser, address: str) -> None:
    with Visit(browser, address, scripts=False) as visit:
        page = visit.go("/?kind=few")
        assert (
            page.get_by_role("link", name="b: failed").get_attribute("href")
            == "/partition?asset=orders&partition=b"
        )
