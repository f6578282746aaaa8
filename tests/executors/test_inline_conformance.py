from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flowstone.app import FlowStone
from flowstone.core.asset import Asset
from flowstone.testing.executor_conformance import ExecutorConformance


class _Inline(ExecutorConformance):
    def make_flow(self, assets: Sequence[Asset], **options: Any) -> FlowStone:
        return FlowStone.for_testing(assets, **options)


class TestSync(_Inline):
    executor = "sync"


class TestAsync(_Inline):
    executor = "async"


class TestSerial(_Inline):
    executor = "serial"
