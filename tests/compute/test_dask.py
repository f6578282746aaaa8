"""The conformance suite of computes on a real Dask cluster of two worker processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.compute.dask_cluster import Cluster, cluster_of

from flowstone.compute import DaskCompute
from flowstone.protocols import Compute
from flowstone.testing.compute_conformance import ComputeConformance

pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster_of(tmp_path_factory.mktemp("dask")) as cluster:
        yield cluster


class TestDask(ComputeConformance):
    """Two processes that nobody starts again."""

    @pytest.fixture(autouse=True)
    def _cluster(self, cluster: Cluster) -> Iterator[None]:
        self.cluster = cluster
        yield
        # a test may have ended a worker
        while sum(worker.poll() is None for worker in cluster.workers) < 2:
            cluster.start_worker()

    def create(self) -> Compute:
        return DaskCompute(self.cluster.address)
