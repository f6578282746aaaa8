"""A FlowStone worker."""

from __future__ import annotations

import sys

from benchmarks.peers.exchange import options
from benchmarks.peers.flowstone_durable_app import app
from flowstone.app.worker import serve


def main() -> int:
    """Serve until SIGTERM."""
    arguments = options()
    return serve(app(arguments["dsn"]), queues=arguments["queues"], on_ready=lambda: print("ready", flush=True))


if __name__ == "__main__":
    sys.exit(main())
