"""Analyses a repository in memory and serves the report beside the dashboard: `python -m git_history PATH`."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route

from flowstone import FlowStone
from flowstone.web import Person, Role, create_app
from git_history.flow import MONTHLY, OVERALL, build


def _reader(request: Request) -> Person:
    """Let everybody on this machine read; the address is that of this machine alone."""
    return Person("reader", Role.VIEWER)


def pages(flow: FlowStone) -> Starlette:
    """Make an application of the report and the dashboard, which links to it."""

    async def report(request: Request) -> Response:
        return HTMLResponse(await flow.aio.load("report"))

    async def home(request: Request) -> Response:
        return RedirectResponse("/flowstone/")

    routes = [Route("/", home), Route("/report", report), Mount("/flowstone", create_app(flow, identify=_reader))]
    return Starlette(routes=routes)


def main() -> None:
    """Read the command line, compute, serve."""
    parser = argparse.ArgumentParser(prog="python -m git_history", description=__doc__)
    parser.add_argument("repository", nargs="?", default=".", help="a clone with its whole history")
    parser.add_argument("--port", type=int, default=8000)
    given = parser.parse_args()
    address = f"http://127.0.0.1:{given.port}"
    with (
        tempfile.TemporaryDirectory() as directory,
        build(given.repository, Path(directory), page=f"{address}/report") as flow,
    ):
        flow.backfill(MONTHLY).raise_for_failures()
        flow.materialize_all(OVERALL).raise_for_failures()
        print(f"report     {address}/report\ndashboard  {address}/flowstone/asset/report")
        uvicorn.run(pages(flow), port=given.port, log_level="warning")


if __name__ == "__main__":
    main()
