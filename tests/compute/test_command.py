"""`CommandCompute` and `python -m flowstone.remote`, with plain processes as the commands."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from flowstone import FlowStone, RetryPolicy, asset
from flowstone.compute import CommandCompute
from flowstone.core.state import State
from flowstone.engine.remote.wire import FORMAT
from flowstone.errors import ConfigurationError, DefinitionError, OptionsError, StepFailedError
from flowstone.io.filesystem import FilesystemIO
from flowstone.testing.compute_assets import compute_assets
from flowstone.testing.marks import Marks, wait_until

REMOTE = [sys.executable, "-m", "flowstone.remote", "{call}", "{answer}"]


def run_command(command: list[str], tmp_path: Path, name: str = "numbers", **options: Any) -> FlowStone:
    compute = CommandCompute(command, **options)
    assets = compute_assets(tmp_path, compute="command")
    return FlowStone.for_testing(
        [one for one in assets if one.name in ("marks", "patient", name)],
        compute={"command": compute},
        io={"filesystem": FilesystemIO(tmp_path / "values", durable=False)},
        default_io="filesystem",
    )


def lost(flow: FlowStone, name: str = "numbers") -> str:
    with flow:
        run = flow.materialize_all(name)
        assert not run.ok
        assert not flow.exists(name)
        return next(iter(run.errors.values()))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"command": []}, "give the program"),
        ({"command": [1]}, "give a list of words"),
        ({"command": ["x", "{call}"]}, "{answer} stands nowhere"),
        ({"command": REMOTE, "options": {"image": "a"}}, "{image} stands nowhere"),
        ({"command": REMOTE, "code": "source"}, "give reference or cloudpickle"),
        ({"command": REMOTE, "values": "there"}, "give remote or local"),
    ],
)
def test_arguments_that_cannot_work(given: Mapping[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        CommandCompute(**given)


def test_options() -> None:
    compute = CommandCompute("run {image} --cpus {cpus} {call} {answer}", options={"cpus": 1})
    compute.check({"image": "a b", "cpus": 2})
    with pytest.raises(OptionsError, match="needs the option 'image'"):
        compute.check({})
    with pytest.raises(OptionsError, match=r"no option 'imag'\. Did you mean 'image'\?"):
        compute.check({"imag": "a", "image": "b"})
    with pytest.raises(OptionsError, match="give text or a number"):
        compute.check({"image": ["a"]})
    with pytest.raises(DefinitionError, match=r"Asset 'one' declares compute='there': the command needs"):
        FlowStone.for_testing([asset(name="one", compute="there")(lambda: 1)], compute={"there": compute})


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (["/nowhere/program", "{call}", "{answer}"], "cannot be started"),
        (["true", "{call}", "{answer}"], "it ended without one, exit code 0"),
        (["sh", "-c", "echo gone >&2; exit 127", "{call}", "{answer}"], "there is no such program"),
        (["sh", "-c", "kill -9 $$", "{call}", "{answer}"], "killed by SIGKILL"),
        (["sh", "-c", 'printf half > "$1"', "{call}", "{answer}"], "there is an answer, but it cannot be read"),
        ([*REMOTE[:3], "{answer}", "{call}", "--lifeline"], "the call cannot be read there"),
        ([*REMOTE, "--lifelin"], "the command line is not what"),
    ],
)
def test_a_command_without_an_answer_is_never_a_success(command: list[str], text: str, tmp_path: Path) -> None:
    """dagster#33755, #11492 (exit code 0, nothing done), #8312, #17448 (killed), #5008 (no word why)."""
    assert text in lost(run_command(command, tmp_path))


def test_an_answer_of_another_call_is_refused(tmp_path: Path) -> None:
    """dagster#21418: one run answered for another, because their tasks had the same name."""
    kept = tmp_path / "kept"
    copying = f'{sys.executable} -m flowstone.remote "$0" "$1"; [ -e {kept} ] && cp {kept} "$1" || cp "$1" {kept}'
    with run_command(["sh", "-c", copying, "{call}", "{answer}"], tmp_path) as flow:
        assert flow.materialize("numbers").value == [1, 2, 3]
        run = flow.materialize_all("numbers", force=True)
        assert "that of another call" in next(iter(run.errors.values()))


def test_what_a_command_writes_is_kept(tmp_path: Path) -> None:
    command = ["sh", "-c", 'echo "pulling"; echo "careful" >&2; exec "$@"', "sh", *REMOTE]
    with run_command(command, tmp_path) as flow:
        made = flow.materialize("numbers")
        assert [one.text for one in flow.logs.of(made.step_id).lines] == ["pulling", "careful"]


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_each_line_is_kept_once(tmp_path: Path, isolation: str) -> None:
    """Records come with the answer, prints as they are printed; with a child process in between as well."""
    (declared,) = [
        one for one in compute_assets(tmp_path, compute="there", isolation=isolation) if one.name == "logs"
    ]
    compute = CommandCompute([*REMOTE, "--lifeline"])
    with FlowStone.for_testing([declared], compute={"there": compute}) as flow:
        made = flow.materialize("logs")
        lines = [one.text for one in flow.logs.of(made.step_id).lines]
        assert lines.count("printed here") == lines.count("rows: 7") == lines.count("it broke") == 1
        assert lines.count("ValueError: inner") == 1


def test_files_are_private_and_gone_afterwards(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    calls.mkdir()
    listing = f'ls -l "$(dirname "$0")" > {tmp_path}/listing; exec {sys.executable} -m flowstone.remote "$0" "$1"'
    with run_command(["sh", "-c", listing, "{call}", "{answer}"], tmp_path, directory=calls) as flow:
        assert flow.materialize("numbers").value == [1, 2, 3]
    assert "-rw------- " in (tmp_path / "listing").read_text()
    assert list(calls.iterdir()) == []


def test_nothing_is_left_of_a_cancelled_command(tmp_path: Path) -> None:
    """A function that does not listen is ended with all of its process group."""
    marks = Marks(tmp_path)
    with run_command([*REMOTE, "--lifeline"], tmp_path, name="deaf") as flow:
        flow.parts.remote.grace_seconds = 0.2
        flow.materialize_all("marks")
        before = set(psutil.Process().children(recursive=True))
        job = flow.schedule("deaf", executor="async")
        assert marks.wait("deaf", timeout_seconds=60)
        flow.cancel_job(job)
        assert wait_until(lambda: flow.job_status(job) is State.CANCELLED)
        assert wait_until(lambda: set(psutil.Process().children(recursive=True)) <= before)


def test_a_command_that_cancels(tmp_path: Path) -> None:
    """For places that a signal does not reach: `scancel --name {key}`."""
    marks = Marks(tmp_path)
    touch = ["touch", f"{tmp_path}/cancelled-{{key}}"]
    with run_command([*REMOTE, "--lifeline"], tmp_path, cancel=touch) as flow:
        flow.materialize_all("marks")
        job = flow.schedule("patient", executor="async")
        assert marks.wait("patient", timeout_seconds=60)
        flow.cancel_job(job)
        assert wait_until(lambda: flow.job_status(job) is State.CANCELLED)
        assert wait_until(lambda: bool(list(tmp_path.glob("cancelled-patient-*"))))


class Caught:
    """A compute that keeps what it is given, for tests that run the call themselves."""

    code, values = "reference", "local"

    def __init__(self) -> None:
        self.payload = b""

    def check(self, options: Mapping[str, Any]) -> None: ...

    def submit(self, call: Any) -> Any:
        self.payload = call.payload
        raise RuntimeError("caught")

    def close(self) -> None: ...


@pytest.fixture
def call(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The file of a call."""
    name = getattr(request, "param", "numbers")
    caught = Caught()
    assets = [one for one in compute_assets(tmp_path, compute="caught") if one.name in ("marks", name)]
    with FlowStone.for_testing(assets, compute={"caught": caught}) as flow:
        assert not flow.materialize_all(name).ok
    file = tmp_path / "call"
    file.write_bytes(caught.payload)
    return file


def remote(*words: object, given: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "flowstone.remote", *map(str, words)]
    return subprocess.run(command, input=given, capture_output=True, check=False, timeout=60)


def test_exit_codes(call: Path, tmp_path: Path) -> None:
    answer = tmp_path / "answer"
    assert remote(call, answer).returncode == 0
    assert answer.stat().st_mode & 0o777 == 0o600
    assert remote().returncode == remote(call).returncode == remote(call, answer, "--what").returncode == 64
    assert remote("-", "-", "--lifeline").returncode == 64
    assert remote(tmp_path / "nowhere", answer).returncode == 65
    damaged = tmp_path / "damaged"
    damaged.write_bytes(call.read_bytes()[:-20])
    assert remote(damaged, answer).returncode == 65
    damaged.write_bytes(pickle.dumps((99, "cpython 3.9", b"")))
    newer = remote(damaged, answer)
    assert newer.returncode == 65
    assert f"knows form {FORMAT}: install the same version".encode() in newer.stderr
    assert remote(call, tmp_path / "no" / "answer").returncode == 73


def test_standard_streams(call: Path) -> None:
    """The answer alone goes to standard output, what is printed elsewhere."""
    done = remote("-", "-", given=call.read_bytes())
    assert done.returncode == 0
    assert pickle.loads(done.stdout)[0] == FORMAT


@pytest.mark.parametrize("call", ["unpicklable"], indirect=True)
def test_a_function_that_raised_is_answered_with_success(call: Path, tmp_path: Path) -> None:
    """So that whatever starts the container or job does not repeat it by itself (dagster#6236)."""
    assert remote(call, tmp_path / "answer").returncode == 0


@pytest.mark.parametrize("call", ["patient"], indirect=True)
@pytest.mark.parametrize("how", ["signal", "closed"])
def test_the_process_hears_that_it_is_to_end(call: Path, tmp_path: Path, how: str) -> None:
    marks = Marks(tmp_path)
    command = [sys.executable, "-m", "flowstone.remote", str(call), str(tmp_path / "answer"), "--lifeline"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert marks.wait("patient", timeout_seconds=60)
        if how == "signal":
            process.send_signal(signal.SIGTERM)
        else:
            assert process.stdin is not None
            process.stdin.close()
        assert process.wait(30) == 0
    assert marks.count("heard") == 1


def test_close_ends_what_runs(tmp_path: Path) -> None:
    marks = Marks(tmp_path)
    flow = run_command([*REMOTE, "--lifeline"], tmp_path)
    flow.materialize_all("marks")
    job = flow.schedule("patient", executor="async")
    assert marks.wait("patient", timeout_seconds=60)
    threads = threading.active_count()
    flow.parts.remote.close()
    assert wait_until(lambda: flow.job_status(job) is State.FAILED)
    assert threading.active_count() < threads
    flow.close()


def test_retries_whatever_the_policy_says(tmp_path: Path) -> None:
    """prefect#5925: a place that died is no exception of the code, and is repeated."""
    once = f'[ -e {tmp_path}/tried ] || {{ touch {tmp_path}/tried; exit 1; }}; exec "$@"'
    declared = asset(compute="there", retry=RetryPolicy(max_attempts=2, backoff_seconds=0, retry_on=KeyError))
    compute = CommandCompute(["sh", "-c", once, "sh", *REMOTE], code="cloudpickle")
    with FlowStone.for_testing([declared(_answer)], compute={"there": compute}) as flow:
        made = flow.materialize("_answer", executor_opts={"retry": True})
        assert (made.value, made.attempt) == (42, 2)


def _answer() -> int:
    return 42


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"options": "image"}, "by the name of their option"),
        ({"environment": "A=1"}, "texts by the names"),
        ({"environment": {"A": 1}}, "texts by the names"),
        ({"directory": 5}, "give a directory"),
    ],
)
def test_what_no_command_can_be_made_with_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        CommandCompute("run {call} {answer}", **options)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(DefinitionError, match=r"there is no compute of this name; there are: dask\..*'dask'"):
        FlowStone.for_testing([asset(name="one", compute="dusk")(lambda: 1)], compute={"dask": Caught()})
    with pytest.raises(ConfigurationError, match="is a class; give an object of it"):
        FlowStone.for_testing([], compute={"dask": Caught})  # type: ignore[dict-item]
    with pytest.raises(ConfigurationError, match="is no compute, it has no code, values"):
        FlowStone.for_testing([], compute={"dask": object()})  # type: ignore[dict-item]
    with pytest.raises(DefinitionError, match="say where it runs as well"):
        asset(compute_options={"a": 1})(_answer)
    with pytest.raises(DefinitionError, match="give a mapping of names"):
        asset(compute="x", compute_options=[1])(_answer)  # type: ignore[call-overload]


def test_packages_register_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = tmp_path / "mine-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(
        "[flowstone.compute]\nmine = mine_compute:make\nbad = mine_compute:no\n"
    )
    command = "[sys.executable, '-m', 'flowstone.remote', '{call}', '{answer}'], code='cloudpickle'"
    make = f"def make():\n    return CommandCompute({command})\n"
    (tmp_path / "mine_compute.py").write_text(f"import sys\nfrom flowstone.compute import CommandCompute\n{make}")
    monkeypatch.syspath_prepend(tmp_path)
    with FlowStone.for_testing([asset(name="one", compute="mine")(lambda: 1)]) as flow:
        assert flow.materialize("one").value == 1
    with pytest.raises(DefinitionError, match=r"'mine_compute:no'\) cannot be imported \(AttributeError"):
        FlowStone.for_testing([asset(name="one", compute="bad")(lambda: 1)])


def test_a_main_script(tmp_path: Path) -> None:
    """Its functions, and classes of its own, are found under the names that they have there."""
    script = tmp_path / "pipeline.py"
    script.write_text(
        "import sys\nfrom dataclasses import dataclass\nfrom flowstone import FlowStone, asset\n"
        "from flowstone.compute import CommandCompute\nfrom flowstone.io import FilesystemIO\n"
        "@dataclass\nclass Pair:\n    a: int\n"
        "@asset(compute='there')\ndef pair() -> Pair:\n    return Pair(1)\n"
        "@asset(compute='there')\ndef read(pair) -> int:\n    return pair.a + 1\n"
        "if __name__ == '__main__':\n"
        "    command = [sys.executable, '-m', 'flowstone.remote', '{call}', '{answer}']\n"
        "    flow = FlowStone.for_testing([pair, read], compute={'there': CommandCompute(command)},\n"
        "        io={'files': FilesystemIO('values', name='files')}, default_io=sys.argv[1])\n"
        "    with flow:\n"
        "        assert flow.materialize_all('read').value == 2\n"
        "        assert flow.load('pair') == Pair(1)\n"
    )
    for io in ("files", "memory"):
        done = subprocess.run([sys.executable, str(script), io], cwd=tmp_path, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()


def test_a_function_that_cannot_be_imported_is_refused_with_the_remedy(tmp_path: Path) -> None:
    declared = asset(name="local", compute="there")(lambda: 1)
    flow = FlowStone.for_testing([declared], compute={"there": CommandCompute(REMOTE)})
    with flow, pytest.raises(DefinitionError, match=r"by the compute 'there'.*code='cloudpickle' of the compute"):
        flow.materialize("local")


def test_other_code_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long-lived workers keep what they imported once: what they have is compared before anything runs."""
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "deployed_code.py"
    text = "from flowstone import asset\n@asset(compute='there'{})\ndef deployed():\n    return {}\n"
    compute = CommandCompute(REMOTE, environment={"PYTHONPATH": str(tmp_path)})
    for now, then, problem in (
        (text.format("", 1), text.format("", 22), "its function is another one"),
        (text.format(", code_version='2'", 1), text.format(", code_version='10'", 1), "is '10' there"),
    ):
        module.write_text(now)
        sys.modules.pop("deployed_code", None)
        deployed = __import__("deployed_code").deployed
        module.write_text(then)
        with FlowStone.for_testing([deployed], compute={"there": compute}) as flow:
            with pytest.raises(Exception, match="was not run on") as error:
                flow.materialize("deployed")
            assert type(error.value).__name__ == "RemoteCodeError"
            assert problem in str(error.value)
    sys.modules.pop("deployed_code", None)


def test_storage_that_only_one_side_sees(tmp_path: Path) -> None:
    """A FilesystemIO on a machine's own disk is no shared storage: nothing is committed that cannot be loaded."""

    assets = [one for one in compute_assets(tmp_path, compute="there") if one.name == "numbers"]
    remote_sees, here = tmp_path / "there", tmp_path / "here"
    moving = f'{" ".join(REMOTE[:3])} "$0" "$1"; mv {remote_sees} {here}'
    compute = CommandCompute(["sh", "-c", moving, "{call}", "{answer}"])
    files = {"filesystem": FilesystemIO(remote_sees)}
    with FlowStone.for_testing(assets, compute={"there": compute}, io=files, default_io="filesystem") as flow:
        run = flow.materialize_all("numbers")
        text = next(iter(run.errors.values()))
        assert "this machine does not see it there" in text
        assert "values='local'" in text
        with pytest.raises(StepFailedError):
            run.raise_for_failures()


def test_children_of_a_lost_worker_end(tmp_path: Path) -> None:
    """The lifeline: when the process that waits is killed, what it started ends by itself."""
    marks = Marks(tmp_path)
    program = (
        "import sys; from pathlib import Path; from tests.compute.test_command import run_command, REMOTE;"
        "flow = run_command([*REMOTE, '--lifeline'], Path(sys.argv[1])); flow.materialize_all('patient')"
    )
    waiting = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"TMPDIR": str(tmp_path)},  # nobody deletes the files of its call
    )
    assert marks.wait("patient", timeout_seconds=60)
    (child,) = [one for one in psutil.Process(waiting.pid).children() if "flowstone.remote" in one.cmdline()]
    os.kill(waiting.pid, signal.SIGKILL)
    waiting.wait()
    assert marks.wait("heard", timeout_seconds=30)
    child.wait(30)
