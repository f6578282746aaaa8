"""An environment for each peer, made by uv on demand with pinned versions."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
DIRECTORY = HERE / ".envs"


@dataclass(frozen=True, slots=True)
class Peer:
    """Something FlowStone is measured beside.

    Args:
        name: of its environment.
        packages: requirements, pinned.
    """

    name: str
    packages: tuple[str, ...]


PEERS = {
    "dagster": Peer("dagster", ("dagster==1.13.29",)),
    "hamilton": Peer("hamilton", ("sf-hamilton==1.90.0",)),
    "oban": Peer("oban", ("oban==0.7.0", "psycopg[binary]==3.3.9", "psycopg-pool==3.3.3", "uvloop==0.23.0")),
    "prefect": Peer("prefect", ("prefect==3.9.1",)),
    "procrastinate": Peer("procrastinate", ("procrastinate==3.10.0", "psycopg[binary]==3.3.9", "uvloop==0.23.0")),
    "pgqueuer": Peer("pgqueuer", ("pgqueuer[asyncpg]==1.6.0", "uvloop==0.23.0")),
}


def python_of(environment: str) -> str:
    """Return the interpreter of an environment, making the environment when it is missing or outdated.

    Args:
        environment: name of a peer, or `flowstone` (and `plain`) for the environment that runs this.

    Raises:
        RuntimeError: uv could not install the peer; with what it said.
    """
    if environment in ("flowstone", "plain"):
        return sys.executable
    peer = PEERS[environment]
    place = DIRECTORY / peer.name
    python = place / "bin" / "python"
    stamp = place / "installed.txt"
    expected = "\n".join((f"python {sys.version_info.major}.{sys.version_info.minor}", *peer.packages))
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != expected:
        _uv("venv", "--clear", "--python", sys.executable, str(place))
        _uv("pip", "install", "--compile-bytecode", "--python", str(python), *peer.packages)
        stamp.write_text(expected, encoding="utf-8")
    return str(python)


def _uv(*arguments: str) -> None:
    # the driver runs in a virtual environment of its own, which uv must not take for the target
    clean = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    done = subprocess.run(["uv", "--quiet", *arguments], capture_output=True, text=True, env=clean, check=False)
    if done.returncode:
        raise RuntimeError(f"uv {' '.join(arguments[:2])} failed: {done.stderr.strip()}")
