"""Analyses a repository in memory and serves the report beside the dashboard: `python -m git_history PATH`."""

from __future__ import annotations

import argparse
import socket
import tempfile
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route

from flowstone import FlowStone, Settings
from flowstone.web import Person, Role, create_app
from git_history.errors import RepositoryError
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
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:  # before anything is computed
        listener.bind(("127.0.0.1", given.port))
    except (OSError, OverflowError) as error:
        parser.exit(1, f"Port {given.port} cannot be used ({error}): choose another one with --port.\n")
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        serve(given.repository, listener, address)
    except RepositoryError as error:
        parser.exit(1, f"{error}\n")


def serve(repository: str, listener: socket.socket, address: str) -> None:
    """Compute in memory, whatever the environment says, and serve until it is stopped.

    Raises:
        RepositoryError: the path is no repository that can be analysed.
    """
    with (
        tempfile.TemporaryDirectory() as directory,
        build(repository, Path(directory), page=f"{address}/report", settings=Settings()) as flow,
    ):
        flow.backfill(MONTHLY).raise_for_failures()
        flow.materialize_all(OVERALL).raise_for_failures()
        print(f"report     {address}/report\ndashboard  {address}/flowstone/asset/report", flush=True)
        uvicorn.Server(uvicorn.Config(pages(flow), log_level="warning")).run(sockets=[listener])


if __name__ == "__main__":
    main()
