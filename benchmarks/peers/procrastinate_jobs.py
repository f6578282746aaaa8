"""The no-op jobs of procrastinate."""

from __future__ import annotations

from procrastinate import App, PsycopgConnector


def app(dsn: str) -> App:
    """Return an app with one task, which does nothing; up to ten connections, more made it no faster."""
    made = App(connector=PsycopgConnector(conninfo=dsn, min_size=2, max_size=10))

    @made.task(name="noop", queue="backfill")
    async def noop(n: int) -> None:
        """Do nothing."""

    return made
