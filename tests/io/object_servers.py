"""Two real object storages, each a process that all workers of a test run share."""

from __future__ import annotations

import fcntl
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import obstore
from obstore.store import S3Store
from tests import supervision

from flowstone.testing.marks import wait_until

HOST = "127.0.0.1"
_NAME = "flowstone"


class Bucket(NamedTuple):
    """A directory in the bucket of a running server; a bucket for each test would be many volumes to SeaweedFS."""

    endpoint: str
    name: str
    directory: str

    @property
    def path(self) -> str:
        """The bucket with the directory, as fsspec writes it."""
        return f"{self.name}/{self.directory}"

    def store(self, *, endpoint: str = "", **options: Any) -> S3Store:
        """Return obstore's client for it, which gives up soon."""
        return S3Store(
            self.name,
            prefix=self.directory,
            endpoint=endpoint or self.endpoint,
            access_key_id="test",
            secret_access_key="test",
            region="us-east-1",
            client_options={"allow_http": True, **options},
            retry_config={"max_retries": 1},
        )

    def files(self, **options: Any) -> Any:
        """Return fsspec's client for it."""
        import s3fs

        made = s3fs.S3FileSystem(
            key="test",
            secret="test",
            # no certificates of authorities: reading them takes 60 ms a client, and nothing is encrypted here
            client_kwargs={"endpoint_url": self.endpoint, "region_name": "us-east-1", "verify": False},
            skip_instance_cache=True,
            **options,
        )
        made.session = _descriptions()  # no argument, as a session cannot be pickled with the client
        return made


@cache
def _descriptions() -> Any:
    """A session of botocore, which reads its description of S3 once and not for each client."""
    from aiobotocore.session import AioSession

    return AioSession()


class Server(NamedTuple):
    """A running server with a bucket."""

    endpoint: str
    pid: int

    def directory(self) -> Bucket:
        """Return a new directory in its bucket."""
        return Bucket(self.endpoint, _NAME, uuid4().hex[:12])

    def make_bucket(self) -> None:
        """Make the bucket, and wait until it takes objects: a server listens before its parts found each other."""
        import botocore.session

        client = botocore.session.get_session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            region_name="us-east-1",
        )
        store = self.directory().store()

        def works() -> bool:
            with suppress(Exception):
                client.create_bucket(Bucket=_NAME)
            with suppress(Exception):
                obstore.put(store, "first", b"1")
                obstore.delete(store, "first")
                return True
            return False

        assert wait_until(works, timeout_seconds=60)


def free_ports(count: int) -> list[int]:
    """Return ports that nobody uses now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind((HOST, 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


def moto(directory: Path) -> Server:
    """Return moto's server of this test run."""

    def command(port: int) -> list[str]:
        return [str(Path(sys.executable).with_name("moto_server")), "-H", HOST, "-p", str(port)]

    return _shared(directory / "moto", command)


def seaweed(directory: Path) -> Server:
    """Return the whole SeaweedFS of this test run: one process, with its S3 gateway."""
    place = directory / "seaweed"

    def command(port: int) -> list[str]:
        ports = [port, *free_ports(7)]
        services = [f"{one}.port{kind}" for one in ("s3", "master", "volume", "filer") for kind in ("", ".grpc")]
        sockets = [  # of its own processes' calls; no option says where, and whoever kills it leaves them
            f"/tmp/seaweedfs-{name.partition('.')[0]}-grpc-{number}.sock"
            for name, number in zip(services, ports, strict=True)
            if name.endswith(".grpc")
        ]
        (place / supervision.LEFT_ELSEWHERE).write_text("\n".join(sockets))
        return [
            str(Path(sys.executable).with_name("weed")),
            f"-logdir={place}",
            "server",
            "-s3",
            f"-dir={place}",
            f"-ip={HOST}",
            f"-ip.bind={HOST}",
            "-volume.max=200",
            "-master.volumeSizeLimitMB=64",
            "-master.telemetry=false",
            f"-s3.localSocket={place}/s3.sock",  # else in /tmp, wherever TMPDIR is
            f"-filer.localSocket={place}/filer.sock",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            *[f"-{name}={port}" for name, port in zip(services, ports, strict=True)],
        ]

    return _shared(place, command)


def _shared(place: Path, command: Callable[[int], list[str]]) -> Server:
    """Return a server that the first worker of pytest-xdist starts, all use, and the end of the run ends."""
    place.mkdir(exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = place / "server.json"
        if not known.exists():
            (port,) = free_ports(1)
            server = Server(f"http://{HOST}:{port}", _start(command(port), port))
            server.make_bucket()
            known.write_text(json.dumps(server))
        return Server(*json.loads(known.read_text()))


def _start(command: list[str], port: int) -> int:
    """Start a server and wait until it answers; return its pid, under which the end of the run finds it."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for the tests
    )
    supervision.may_outlive_its_worker(process.pid)

    def answers() -> bool:
        assert process.poll() is None, f"{command[0]} ended with {process.returncode}"
        with suppress(OSError), socket.create_connection((HOST, port), 1.0):
            return True
        return False

    try:
        assert wait_until(answers, timeout_seconds=120)
    except BaseException:
        process.kill()
        process.wait()
        raise
    process.returncode = 0  # nobody waits for it here, which Popen would warn of
    return process.pid


class CutWire:
    """A proxy that passes on what a client sends, and cuts the connection after so many bytes.

    Args:
        target: endpoint of a server.
        upload_bytes: what each connection may send; None does not cut.
        download_bytes: what each connection may receive; None does not cut.
    """

    def __init__(self, target: str, *, upload_bytes: int | None = None, download_bytes: int | None = None) -> None:
        self._target = (HOST, int(target.rpartition(":")[2]))
        self._limits = (upload_bytes, download_bytes)
        self._listener = socket.create_server((HOST, 0))
        self.endpoint = f"http://{HOST}:{self._listener.getsockname()[1]}"
        self.connections = 0
        self._threads = [threading.Thread(target=self._accept)]
        self._open: list[socket.socket] = []

    def __enter__(self) -> CutWire:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        for one in (self._listener, *self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
            except OSError:
                return
            self.connections += 1
            self._open += [client, server]
            for ends, limit in zip(((client, server), (server, client)), self._limits, strict=True):
                thread = threading.Thread(target=_pump, args=(*ends, limit))
                self._threads.append(thread)
                thread.start()


def _pump(source: socket.socket, target: socket.socket, limit: int | None) -> None:
    passed = 0
    with suppress(OSError):
        while data := source.recv(65_536):
            passed += len(data)
            if limit is not None and passed > limit:
                break
            target.sendall(data)
    for one in (source, target):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
