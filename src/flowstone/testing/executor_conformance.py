"""What every executor must mean, as tests to run on yours."""

from __future__ import annotations

from flowstone.testing.executor_approvals import ApprovalByExecutorTests
from flowstone.testing.executor_checks import CheckingTests
from flowstone.testing.executor_failures import FailureTests
from flowstone.testing.executor_placing import PlacingByExecutorTests
from flowstone.testing.executor_routes import RouteTests
from flowstone.testing.executor_scatter import ScatterTests
from flowstone.testing.executor_values import ValueTests


class ExecutorConformance(
    ValueTests,
    FailureTests,
    PlacingByExecutorTests,
    CheckingTests,
    ApprovalByExecutorTests,
    RouteTests,
    ScatterTests,
):
    """Tests of the meaning of an executor; make a subclass whose name starts with `Test`.

    Override `make_flow`, and `executor` with the executor's name or object. What an executor does not declare
    in its capabilities is tested as a clear refusal. An executor whose work runs in other processes starts
    workers on `flowstone.testing.conformance_assets:flow` with the environment of the test: the assets leave
    their marks in a directory that an environment variable names.

    Example:
        >>> from flowstone import FlowStone
        >>> class TestMyExecutor(ExecutorConformance):
        ...     executor = "sync"
        ...     def make_flow(self, assets, **options):
        ...         return FlowStone.for_testing(assets, **options)
    """
