from __future__ import annotations

import io
import json
import re
from datetime import date
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from flowstone import DailyPartitions, FlowStone, Schedule, asset
from flowstone.app.results import Progress
from flowstone.core.html_tables import MAX_ROWS, html_table
from flowstone.core.state import State
from flowstone.notebook import progress

NOTEBOOK = Path(__file__).parents[2] / "examples" / "notebook.ipynb"
EVIL = "<script>alert(1)</script>"


class Text(HTMLParser):
    """Collects texts and tags, and refuses tags that are not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._open.append(tag)
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def shown(thing: Any) -> Text:
    html = thing._repr_html_()
    assert "<script" not in html
    return Text(html)


@asset(partitions=DailyPartitions("2024-01-01"), group=EVIL, description=f"{EVIL}\nand more")
def sales(context: Any) -> int:
    if context.partition == date(2024, 1, 2):
        raise ValueError(f"{EVIL} password=hunter2")
    return context.partition.day


@asset(partitions=DailyPartitions("2024-01-01"))
def report(sales: int) -> str:
    return f"{sales}"


@pytest.fixture
def app() -> FlowStone:
    return FlowStone.for_testing([sales, report], schedules=[Schedule("report", "0 6 * * *")])


def test_an_app_and_its_graph(app: FlowStone) -> None:
    for one in (app, app.graph):
        found = shown(one)
        assert found.tags == {"table", "caption", "thead", "tbody", "tr", "th", "td"}
        assert {"report", "sales", EVIL} <= set(found.texts)
    assert "2 assets" in shown(app.graph).texts
    assert "memory" in shown(app).texts


def test_a_plan_says_what_runs_and_what_is_reused(app: FlowStone) -> None:
    app.materialize("sales", partition=date(2024, 1, 1))
    plan = app.plan("+report", partitions=[date(2024, 1, 1), date(2024, 1, 3)])
    assert "Plan: 3 to run, 1 reused" in shown(plan).texts
    assert "missing: sales" in shown(app.plan("report", partitions=[date(2024, 1, 5)])).texts


def test_a_run_says_what_failed_without_its_secrets(app: FlowStone) -> None:
    run = app.backfill("+report", partitions=[date(2024, 1, 1), date(2024, 1, 2)])
    found = shown(run)
    assert any("failed" in text for text in found.texts)
    assert any(EVIL in text for text in found.texts)
    assert "hunter2" not in "".join(found.texts)


def test_a_materialization_is_not_loaded_for_showing_it(app: FlowStone) -> None:
    done = app.materialize("sales", partition=date(2024, 1, 1))
    assert {"Materialization of sales", "completed", done.run_id} <= set(shown(done).texts)


def test_long_tables_are_cut() -> None:
    html = html_table("x", ["a"], ([n] for n in range(MAX_ROWS + 1234)))
    assert "and 1,234 more" in html
    assert html.count("<tr>") == MAX_ROWS + 2


def test_progress_outside_of_a_notebook_is_a_line_for_each_change() -> None:
    """Nothing is written twice, and no control characters go into a file."""
    stream = io.StringIO()
    listener = progress(stream=stream)
    for done in (0, 0, 1, 2):
        counts = {State.COMPLETED: done, State.PENDING: 2 - done}
        listener(Progress("r", 2, counts, ("a limit",) if done == 1 else ()))
    lines = stream.getvalue().splitlines()
    assert [re.sub(r"\[.*?\] ", "", line) for line in lines] == ["0 of 2", "1 of 2; waits: a limit", "2 of 2"]
    assert "\x1b" not in stream.getvalue()


def test_the_notebook_runs_in_a_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(tmp_path)}}).execute()
    cells = {cell.id: cell.get("outputs", []) for cell in notebook.cells}
    assert "2 assets" in cells["declare"][0].data["text/html"]
    assert "4 to run" in cells["plan"][0].data["text/html"]
    bars = [one for one in cells["run"] if "<progress" in one.data.get("text/html", "")]
    assert len(bars) == 1, "one output that is updated in place"
    assert "14 of 14" in bars[0].data["text/plain"]
    assert "completed" in cells["run"][-1].data["text/html"]
    assert "reused" in cells["again"][0].data["text/html"]
    assert cells["value"][0].data["text/plain"] == "'30 EUR'"
    assert cells["aio"][0].data["text/plain"] == "90"


def test_the_notebook_is_kept_without_outputs() -> None:
    document = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert not [cell for cell in document["cells"] if cell.get("outputs") or cell.get("execution_count")]
