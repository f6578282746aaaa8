"""How long a command of the environment takes from its start to its end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.peers.exchange import answer, options, repeat


def main() -> None:
    """Print the seconds of each repetition."""
    arguments = options()
    program, *rest = arguments["command"]
    command = [str(Path(sys.executable).with_name(program)), *rest]

    def run(_: None) -> None:
        subprocess.run(command, check=True, capture_output=True)

    answer(seconds=repeat(lambda: None, run, repetitions=arguments["repetitions"], warmups=2))


main()
