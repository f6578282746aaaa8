"""An app that is watched: each process of it writes its spans, as the SDK makes them, into a file of its own."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from tests.faults.fault_app import directory
from tests.worker_app import run_worker, short_settings

from flowstone import FlowStone, RetryPolicy, asset
from flowstone.observability import JsonFormatter, OpenTelemetry

if (place := os.environ.get("OBSERVED_SPANS")) is not None:
    provider = TracerProvider(resource=Resource.create({"service.name": "observed"}))
    out = (Path(place) / f"spans-{os.getpid()}.jsonl").open("a", buffering=1)
    exporter = ConsoleSpanExporter(out=out, formatter=lambda span: span.to_json(indent=None) + "\n")
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)


def _meet(mine: str, other: str) -> int:
    """Wait for the other one, so that both run at once and each on a worker of its own."""
    (directory() / f"here-{mine}").touch()
    until = time.monotonic() + 60.0
    while not (directory() / f"here-{other}").exists():
        if time.monotonic() > until:
            raise TimeoutError(other)
        time.sleep(0.01)
    with trace.get_tracer("user").start_as_current_span(f"inside {mine}"):
        logging.getLogger("observed").warning("here is %s", mine)
    return os.getpid()


@asset
def left() -> int:
    return _meet("left", "right")


@asset
async def right() -> int:
    return _meet("right", "left")


@asset(isolation="process")
def joined(left: int, right: int) -> list[int]:
    with trace.get_tracer("user").start_as_current_span("inside joined"):
        return [left, right, os.getpid()]


@asset(retry=RetryPolicy(max_attempts=2, backoff_seconds=0))
def fails_once(context) -> int:
    if context.attempt == 1:
        raise ValueError("not yet, password=hunter2")
    return 1


def make_flow(database_url: str, storage: str) -> FlowStone:
    """Return the app."""
    settings = short_settings(database_url, storage, grace_seconds=30.0)
    observers = [OpenTelemetry()] if place is not None else []
    return FlowStone([left, right, joined, fails_once], settings=settings, observers=observers)


def main() -> None:
    """Run a worker as the environment says."""
    handler = logging.FileHandler(directory() / f"log-{os.getpid()}.jsonl")
    handler.setFormatter(JsonFormatter())
    logging.getLogger().addHandler(handler)
    run_worker(make_flow)
