"""What every store must mean, as tests to run on yours."""

from __future__ import annotations

from flowstone.testing.store_attempts import AttemptTests
from flowstone.testing.store_cancelling import CancelTests
from flowstone.testing.store_cascades import CascadeTests
from flowstone.testing.store_catalog import CatalogTests
from flowstone.testing.store_checks import CheckTests
from flowstone.testing.store_partition_keys import PartitionKeysTests
from flowstone.testing.store_placing import PlacingTests
from flowstone.testing.store_routes import RouteStoreTests
from flowstone.testing.store_scatter_ends import ScatterEndTests
from flowstone.testing.store_scatters import ScatterStoreTests


class StoreConformance(
    PlacingTests,
    AttemptTests,
    CascadeTests,
    CancelTests,
    CatalogTests,
    PartitionKeysTests,
    CheckTests,
    RouteStoreTests,
    ScatterStoreTests,
    ScatterEndTests,
):
    """Tests of the meaning of a store; make a subclass whose name starts with `Test`.

    Override `make_store`. Every test asks for one new, empty store and closes it in the end.

    Example:
        >>> from flowstone.stores.memory import MemoryStore
        >>> class TestMyStore(StoreConformance):
        ...     def make_store(self):
        ...         return MemoryStore()
    """
