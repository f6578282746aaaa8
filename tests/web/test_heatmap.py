"""The heat map of partitions, and that states are read without colour."""

from __future__ import annotations

import gzip
import json
import re
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import pytest

from flowstone import DailyPartitions, MultiPartitions, StaticPartitions
from flowstone.core.partitions import encode_partition
from flowstone.engine.insights.partitions import (
    FAILED,
    STATES,
    OrderedPartitions,
    PartitionMap,
    partition_map,
)
from flowstone.web import rendering, shown
from flowstone.web.heatmap import heatmap
from flowstone.web.registry import url
from flowstone.web.states import cell_path, shape

NOW = datetime(2026, 11, 30, tzinfo=UTC)
STYLE = Path(rendering.__file__).parent / "static" / "flowstone.css"


def mapped(definition: object, failed: int | None = None) -> PartitionMap:
    keys = [encode_partition(key) for key in definition.keys(NOW)]  # type: ignore[attr-defined]
    numbers = bytearray([1]) * len(keys)
    if failed is not None:
        numbers[failed] = FAILED
    return partition_map(OrderedPartitions(definition, keys), numbers)  # type: ignore[arg-type]


def elements(markup: object) -> int:
    return sum(1 for _ in ElementTree.fromstring(f"<r>{markup}</r>").iter())


def test_few_cells_are_links_with_their_partition_and_state() -> None:
    chart = heatmap(
        mapped(StaticPartitions(["eu", "a/b?", "<b>"]), 1), title="Partitions", asset="or ders", url=url
    )
    root = ElementTree.fromstring(str(chart))
    links = {one.get("aria-label"): one.get("href") for one in root.iter("a") if one.get("aria-label")}
    assert links["a/b?: failed"] == "/partition?asset=or+ders&partition=a%2Fb%3F"
    assert links["<b>: committed"] == "/partition?asset=or+ders&partition=%3Cb%3E"


def test_a_hundred_thousand_partitions_are_few_elements_and_one_failure_is_seen() -> None:
    # dagster#15679, #10330: pages that never came, or came without the one partition that mattered
    many = StaticPartitions([f"customer-{number:06}" for number in range(100_000)])
    chart = heatmap(mapped(many, 61_803), title="Partitions", asset="orders", url=url)
    assert "1 failed, 99,999 committed of 100,000; a cell is up to 50 partitions" in str(chart)
    assert len(re.findall(r'class="cell bad"', str(chart))) == 2  # the drawing and the legend
    assert elements(chart) < 120
    assert len(gzip.compress(str(chart).encode())) < 30_000
    assert "customer-061800" in str(chart)


def test_what_the_script_reads_is_what_is_drawn() -> None:
    cells = mapped(MultiPartitions(region=StaticPartitions(["eu", "us"]), tier=StaticPartitions([1, 2, 3])), 4)
    chart = ElementTree.fromstring(str(heatmap(cells, title="P", asset="a", form="range")))
    (box,) = [one for one in chart.iter("div") if one.get("data-cells")]
    assert json.loads(box.get("data-cells", ""))[4] == [1, 1, "us|2", 0, "failed"]
    left, top, size = (int(box.get(f"data-{name}", "")) for name in ("left", "top", "size"))
    drawn = [one.get("d", "") for one in box.iter("path") if "bad" in one.get("class", "")]
    assert drawn == [cell_path("failed", left + size + 1, top + size + 1)]
    assert (box.get("data-kind"), box.get("data-form"), box.get("tabindex")) == ("matrix", "range", "0")


def test_a_calendar_has_rows_of_months() -> None:
    chart = str(heatmap(mapped(DailyPartitions(start="2026-01-01"), 0), title="P", asset="a", url=url))
    assert ">2026-01</text>" in chart
    assert "2026-01-01" in chart


@pytest.mark.parametrize("keys", [[], ["x" * 200], ["\u202e", "🦀", "health", ".."]])
def test_any_keys_can_be_drawn(keys: list[str]) -> None:
    empty = PartitionMap("rows", "", (), (), (), False)
    chart = heatmap(mapped(StaticPartitions(keys)) if keys else empty, title="P", asset="a", url=url)
    assert elements(chart)


def luminance(colour: str) -> float:
    """The relative luminance of WCAG 2: what is left of a colour in grey."""
    digits = colour.lstrip("#")
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)] if len(digits) == 6 else []
    parts = parts or [int(one * 2, 16) / 255 for one in digits]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def palette(theme: int) -> dict[str, str]:
    found = re.findall(r"--([a-z]+):light-dark\((#\w+),(#\w+)\)", STYLE.read_text(encoding="utf-8"))
    return {name: colours[theme] for name, *colours in found}


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_every_tone_stands_out_and_none_depends_on_its_colour(theme: int) -> None:
    colours = palette(theme)
    for tone in ("good", "bad", "warn", "busy", "off", "idle"):
        for ground in ("bg", "panel"):
            assert contrast(colours[tone], colours[ground]) >= 4.5, f"{tone} on {ground}"
    for one, other in combinations(STATES, 2):
        grey = contrast(colours[shown.tone(one)], colours[shown.tone(other)]) >= 1.5
        assert grey or shape(one).form != shape(other).form, f"in grey, {one} and {other} are one"
        assert shape(one).form != shape(other).form
        assert shown.glyph(one) != shown.glyph(other) or one == other or {one, other} <= {"missing", "unstarted"}


def test_templates_can_use_every_chart() -> None:
    names = rendering._environment().globals
    assert {"strip", "bars", "plot", "gantt", "heatmap"} <= set(names)
