"""The documentation site: what is public has its place, and every page is on the path. CI builds it strictly."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from flowstone import FlowStone, testing

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def conf() -> dict[str, Any]:
    return runpy.run_path(str(DOCS / "conf.py"))


def test_all_that_is_public_is_in_the_reference(conf: dict[str, Any]) -> None:
    """Also what nobody has put on one of its pages yet."""
    page = conf["_with_all_names"]((DOCS / "reference" / "declarations.md").read_text(encoding="utf-8"))
    assert [one for one in conf["left_over"]() if f":: flowstone.{one}" not in page] == []
    assert sorted(set(testing.__all__) - conf["documented"]()) == []


def test_all_views_are_in_the_reference(conf: dict[str, Any]) -> None:
    with FlowStone.for_testing([]) as flow:
        found = {
            name: type(getattr(flow, name)) for name in dir(flow) if not name.startswith("_") and name != "aio"
        }
    views = {name: kind for name, kind in found.items() if kind.__name__.endswith("View")}
    page = conf["_with_all_views"]((DOCS / "reference" / "views.md").read_text(encoding="utf-8"))
    assert sorted(re.findall(r"^## flow\.(\w+)$", page, re.MULTILINE)) == sorted(views)
    assert [one for one in views.values() if f".{one.__name__}\n" not in page] == []


def test_every_page_is_on_the_path(conf: dict[str, Any]) -> None:
    index = conf["_with_all_pages"]((DOCS / "index.md").read_text(encoding="utf-8"))
    listed = re.findall(r"^[\w/-]+$", index, re.MULTILINE)
    assert sorted({path.stem for path in DOCS.glob("*.md")} - set(listed)) == ["index"]
    assert len(listed) == len(set(listed))


def test_links_that_leave_the_pages_name_what_is_there(conf: dict[str, Any]) -> None:
    """With a file that is gone the site is not built."""
    for path in sorted(DOCS.rglob("*.md")):
        source = [path.read_text(encoding="utf-8")]
        conf["_read"](None, path.relative_to(DOCS).with_suffix("").as_posix(), source)
        assert "](../examples" not in source[0]
    with pytest.raises(ValueError, match="there is no"):
        conf["_read"](None, "quickstart", ["[x](../examples/gone.py)"])


def test_what_stands_beside_a_page_for_language_models(conf: dict[str, Any]) -> None:
    first = conf["_first_paragraph"]
    assert first("# Title\n\n| a | b |\n\nOne [link](x.md) here. And more.") == "One link here."
    assert first("# Title\n\n```py\nx\n```") == ""
