"""What a store says so that whoever watches knows whether to read again."""

from __future__ import annotations

from typing import NamedTuple


class Pulse(NamedTuple):
    """A text for each topic that is another one as soon as something about it is; equal while nothing is.

    Args:
        runs: runs were placed, went on or ended.
        steps: attempts started or ended.
        queues: queues were paused, resumed or resized, or have other work.
        approvals: requests for approval were made or decided.
        automations: schedules, sensors, conditions were evaluated, paused or resumed.
        workers: workers came, went or were lost.
        audit: people did something.
        logs: lines that steps logged were written.
    """

    runs: str
    steps: str
    queues: str
    approvals: str
    automations: str
    workers: str
    audit: str
    logs: str
