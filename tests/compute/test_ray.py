"""The conformance suite of computes on a real Ray of this machine.

Starting one takes most of a minute and half a gigabyte, so this runs when it is asked for:

    RAY_TESTS=1 uv run pytest -n 0 tests/compute/test_ray.py
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowstone.compute import RayCompute
from flowstone.errors import ConfigurationError, OptionsError
from flowstone.protocols import Compute
from flowstone.testing.compute_conformance import ComputeConformance


@pytest.fixture(scope="module")
def ray() -> Iterator[str]:
    """A Ray with two processors, started once and gone afterwards; the pids are those that it started."""
    if not os.environ.get("RAY_TESTS"):
        pytest.skip("set RAY_TESTS=1 to start a Ray here, which takes most of a minute")
    ray = pytest.importorskip("ray")
    # short, as its sockets lie there: beside the directory of this run, not in it
    directory = Path(tempfile.mkdtemp(prefix="fsray-", dir=os.environ.get("PYTEST_DEBUG_TEMPROOT")))
    try:
        try:
            ray.init(
                num_cpus=4,
                include_dashboard=False,
                log_to_driver=False,
                configure_logging=False,
                object_store_memory=100_000_000,
                _temp_dir=str(directory),
                runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path)}},
            )
        except Exception as error:
            pytest.skip(f"Ray does not start here: {error}")
        yield "auto"
    finally:
        ray.shutdown()
        shutil.rmtree(directory, ignore_errors=True)


class TestRay(ComputeConformance):
    """Tasks of a local Ray."""

    @pytest.fixture(autouse=True)
    def _ray(self, ray: str) -> None:
        self.address = ray

    def create(self) -> Compute:
        return RayCompute(self.address)

    def test_a_ray_that_was_there_stays(self) -> None:
        """prefect#21920: whoever connected before keeps the connection."""
        import ray

        compute = RayCompute(self.address)
        compute.close()
        assert ray.is_initialized()


def test_options_that_would_have_ray_repeat_are_refused() -> None:
    compute = RayCompute("auto")
    compute.check({"num_cpus": 1, "resources": {"big": 1}})
    with pytest.raises(OptionsError, match="a submission is one attempt"):
        compute.check({"max_retries": 3})
    with pytest.raises(ConfigurationError, match=r"arguments of ray\.init by name"):
        RayCompute("auto", init="num_cpus=1")  # type: ignore[arg-type]
    with pytest.raises(OptionsError, match="Did you mean 'num_gpus'"):
        compute.check({"num_gpu": 1})


def test_importing_it_does_not_need_ray() -> None:
    program = "import sys, flowstone.compute; assert not {'ray', 'distributed', 'cloudpickle'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
