"""The conformance suite of computes on a real Dask cluster of two worker processes."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.compute.dask_cluster import Cluster, cluster_of

from flowstone import AssetContext, FlowStone, asset
from flowstone.compute import DaskCompute
from flowstone.errors import ComputeLostError, ConfigurationError, OptionsError
from flowstone.protocols import Compute
from flowstone.testing.compute_conformance import ComputeConformance
from flowstone.testing.marks import Marks, wait_until

Client = pytest.importorskip("distributed").Client


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

    def test_a_call_that_no_worker_takes_says_so(self, flow: FlowStone) -> None:
        """prefect#21638, prefect-dask#59: the step says why it runs for so long, and can be cancelled."""
        declared = asset(name="number", compute="dask", compute_options={"resources": {"GPU": 1}})(number_of(1))
        compute = DaskCompute(self.cluster.address, code="cloudpickle")
        with FlowStone.for_testing([declared], compute={"dask": compute}) as flow:
            flow.parts.remote.ask_seconds = 0.1
            job = flow.schedule("number", executor="async")
            text = "the Dask cluster has no worker that fits"
            assert wait_until(lambda: any(text in one.text for one in flow.logs.of(job).lines))
            flow.cancel_job(job)
            assert wait_until(lambda: flow.job_status(job) == "cancelled")

    def test_a_task_that_the_scheduler_forgot_is_lost(self, marks: Marks, flow: FlowStone) -> None:
        """prefect#21638: what nobody runs any more does not count as running."""
        flow.parts.remote.ask_seconds = 0.2
        flow.materialize_all("marks")
        job = flow.schedule("patient", executor="async")
        assert marks.wait("patient", timeout_seconds=60)
        with Client(self.cluster.address, set_as_default=False) as client:
            client.run_on_scheduler(forget)
        assert wait_until(lambda: flow.job_status(job) == "failed")
        assert "ComputeLostError" in (flow.runs.step(job).error or "")

    def test_a_process_that_cannot_listen_holds_up_no_cancel_elsewhere(
        self, marks: Marks, flow: FlowStone
    ) -> None:
        """distributed#6368, distributed#4645: a function that holds the interpreter makes its worker deaf."""
        with Client(self.cluster.address, set_as_default=False) as client:
            deaf, listens = list(client.scheduler_info()["workers"])[:2]

        def holds() -> None:
            marks.leave("holds")
            ctypes.PyDLL(None).sleep(20)  # a PyDLL keeps the interpreter
            marks.leave("let go")

        def waits(context: AssetContext) -> None:
            marks.leave("waits")
            while not context.cancellation.wait(0.05):
                pass
            context.cancellation.raise_if_cancelled("waits")

        assets = [
            asset(name=name, compute="dask", compute_options={"workers": address})(function)
            for name, function, address in (("holds", holds, deaf), ("waits", waits, listens))
        ]
        compute = DaskCompute(self.cluster.address, code="cloudpickle")
        with FlowStone.for_testing(assets, compute={"dask": compute}) as flow:
            waiting = flow.schedule("waits", executor="async")
            assert marks.wait("waits", timeout_seconds=60)
            holding = flow.schedule("holds", executor="async")
            assert marks.wait("holds", timeout_seconds=60)
            flow.cancel_job(waiting)
            assert wait_until(lambda: flow.job_status(waiting) == "cancelled")
            assert marks.count("let go") == 0
            flow.runs.wait_for(holding, timeout_seconds=60)

    def test_lines_of_the_last_moment_are_there_once(self, marks: Marks, flow: FlowStone) -> None:
        """prefect#6872, prefect#17750: some lines were dropped. Those sent ahead are in the answer too."""

        def counts(context: AssetContext) -> None:
            for number in range(300):
                context.logger.info("line %d", number)
                time.sleep(0.01)

        compute = DaskCompute(self.cluster.address, code="cloudpickle")
        with FlowStone.for_testing([asset(compute="dask")(counts)], compute={"dask": compute}) as flow:
            made = flow.materialize("counts")
            lines = [line.text for line in flow.logs.of(made.step_id).lines]
        assert lines == [f"line {number}" for number in range(300)]

    def test_doctor_looks_at_the_scheduler(self, tmp_path: Path) -> None:
        """`flowstone doctor --app` says whether Dask repeats by itself, and when nobody answers."""
        program = (
            "from flowstone import FlowStone\nfrom flowstone.compute import DaskCompute\nflow = FlowStone([], "
        )
        for address, code, text in (
            (self.cluster.address, 0, "repeats nothing by itself"),
            ("tcp://127.0.0.1:9", 1, "does not answer"),
        ):
            compute = f"compute={{'dask': DaskCompute('{address}', connect_seconds=1)}})\n"
            (tmp_path / "clustered.py").write_text(program + compute)
            command = [sys.executable, "-m", "flowstone", "doctor", "--app", "clustered", "--json"]
            done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
            assert done.returncode == code, done.stderr
            found = [one["detail"] for one in json.loads(done.stdout)["checks"] if one["name"] == "compute dask"]
            assert text in "\n".join(found)

    def test_a_client_of_ones_own(self, flow: FlowStone) -> None:
        """For clusters that need more than an address; what the function returns is closed with the app."""
        made: list[object] = []

        def connect() -> object:
            made.append(Client(self.cluster.address, set_as_default=False))
            return made[-1]

        compute = DaskCompute(connect, code="cloudpickle")
        with FlowStone.for_testing(
            [asset(name="number", compute="dask")(number_of(3))], compute={"dask": compute}
        ) as flow:
            assert flow.materialize("number").value == 3
            assert flow.materialize("number", force=True).value == 3
        assert [one.status for one in made] == ["closed"]  # type: ignore[attr-defined]

    def test_keys_do_not_meet(self, flow: FlowStone) -> None:
        """dagster#21418: the same asset, step and attempt of two apps on one cluster are two tasks."""
        assets = [asset(name="number", compute="dask")(number_of(answer)) for answer in (1, 2)]
        compute = DaskCompute(self.cluster.address, code="cloudpickle")
        flows = [FlowStone.for_testing([one], compute={"dask": compute}) for one in assets]
        made = [one.materialize("number") for one in flows]
        assert [one.value for one in made] == [1, 2]
        assert made[0].step_id == made[1].step_id
        for one in flows:
            one.close()


def forget(dask_scheduler: object = None) -> None:
    """Have the scheduler forget all tasks without a word to whoever waits."""
    for key in list(dask_scheduler.tasks):  # type: ignore[attr-defined]
        for client in dask_scheduler.clients.values():  # type: ignore[attr-defined]
            client.wants_what.discard(dask_scheduler.tasks[key])  # type: ignore[attr-defined]
        del dask_scheduler.tasks[key]  # type: ignore[attr-defined]


def number_of(answer: int) -> Callable[[], int]:
    """Return a function that lies in no module: it travels by value."""

    def number() -> int:
        return answer

    return number


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"retries": 2}, "a submission is one attempt"),
        ({"pure": True}, "has a key of its own"),
        ({"worker": "a"}, "Did you mean 'workers'"),
        ({"workers": []}, "give a worker's name"),
        ({"resources": {"GPU": 0}}, "give amounts by name"),
        ({"priority": "high"}, "give a whole number"),
        ({"allow_other_workers": "yes"}, "give True or False"),
    ],
)
def test_options_that_cannot_work(options: dict[str, object], text: str) -> None:
    with pytest.raises(OptionsError, match=text):
        DaskCompute("tcp://127.0.0.1:9").check(options)


@pytest.mark.parametrize("address", ["", 5, DaskCompute])
def test_addresses_that_cannot_work(address: object) -> None:
    with pytest.raises(ConfigurationError, match="give the address of the scheduler"):
        DaskCompute(address)  # type: ignore[arg-type]


def test_a_scheduler_that_is_not_there(tmp_path: Path) -> None:
    """Soon, and as a failed attempt that is worth another one."""
    compute = DaskCompute("tcp://127.0.0.1:9", connect_seconds=0.5, code="cloudpickle")
    declared = asset(name="number", compute="dask")(number_of(1))
    with (
        FlowStone.for_testing([declared], compute={"dask": compute}) as flow,
        pytest.raises(ComputeLostError, match=r"the Dask scheduler tcp://127.0.0.1:9.*it does not take calls"),
    ):
        flow.materialize("number")
