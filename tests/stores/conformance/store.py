"""What every store must mean, as tests to run on yours."""

from __future__ import annotations

from tests.stores.conformance.attempts import AttemptTests, CancelTests
from tests.stores.conformance.audit import AuditTests
from tests.stores.conformance.bulk import BulkTests
from tests.stores.conformance.catalog import CatalogTests, CheckTests, PartitionKeysTests
from tests.stores.conformance.logs import LogTests
from tests.stores.conformance.notifications import NotificationTests
from tests.stores.conformance.placing import CascadeTests, PlacingTests, RouteStoreTests
from tests.stores.conformance.runs import RunListTests
from tests.stores.conformance.scatters import ScatterEndTests, ScatterStoreTests
from tests.stores.conformance.versions import EraseTests, VersionTests


class StoreConformance(
    PlacingTests,
    AttemptTests,
    CascadeTests,
    CancelTests,
    CatalogTests,
    PartitionKeysTests,
    CheckTests,
    AuditTests,
    BulkTests,
    RunListTests,
    LogTests,
    NotificationTests,
    RouteStoreTests,
    ScatterStoreTests,
    ScatterEndTests,
    VersionTests,
    EraseTests,
):
    """Tests of the meaning of a store; make a subclass whose name starts with `Test`.

    Override `make_store`. Every test asks for one new, empty store and closes it in the end.

    Example:
        >>> from flowstone.stores.memory import MemoryStore
        >>> class TestMyStore(StoreConformance):
        ...     def make_store(self):
        ...         return MemoryStore()
    """
