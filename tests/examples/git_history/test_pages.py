"""The report is linked from the dashboard."""

from __future__ import annotations

from pathlib import Path

from hostile import Stream
from starlette.testclient import TestClient

from git_history.__main__ import pages
from git_history.flow import MONTHLY, OVERALL, build


def test_the_dashboard_links_to_the_report(tmp_path: Path) -> None:
    stream = Stream()
    stream.commit()
    address = "http://127.0.0.1:8000/report"
    with build(stream.into(tmp_path / "one"), tmp_path / "data", page=address) as flow:
        flow.backfill(MONTHLY).raise_for_failures()
        flow.materialize_all(OVERALL).raise_for_failures()
        step = flow.history("report")[0].step_id
        with TestClient(pages(flow), base_url="http://127.0.0.1:8000") as client:
            assert "Commits by week" in client.get("/report").text
            shown = client.get(f"/flowstone/step?id={step}").text
            assert f'<a href="{address}" rel="noopener noreferrer">' in shown
            assert client.get("/").url.path == "/flowstone/"
