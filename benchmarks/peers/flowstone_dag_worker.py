"""A worker for the shapes of durable work."""

from __future__ import annotations

import sys

from benchmarks.peers.exchange import options
from benchmarks.peers.flowstone_shapes_app import shape
from flowstone.app.worker import serve


def main() -> int:
    """Serve until SIGTERM."""
    arguments = options()
    queues = arguments.pop("queues")
    return serve(shape(**arguments), queues=queues, on_ready=lambda: print("ready", flush=True))


if __name__ == "__main__":
    sys.exit(main())
