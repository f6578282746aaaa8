"""`python -m benchmarks`: measures FlowStone beside its peers and prints the tables."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.environments import python_of
from benchmarks.figures import Figure, figures
from benchmarks.measurement import Contestant, Series, compete, run_measurement
from benchmarks.noise import Noise
from benchmarks.server import Server, running_server
from benchmarks.tables import as_json, figure_table, noise_table, setting_lines

GROUPS = ("inline", "durable", "shapes", "import", "start")


def main() -> int:
    """Run what was asked for."""
    arguments = _arguments()
    chosen = [one for one in figures(quick=arguments.quick) if arguments.group in ("all", one.group)]
    chosen = [one for one in chosen if arguments.only in one.title]
    noise = Noise()
    _prepare(chosen)
    results: list[tuple[Figure, list[Series]]] = []
    with _server(chosen) as server:
        print(setting_lines(server.settings() if server else None), end="\n\n", flush=True)
        for figure in chosen:
            print(figure.title, file=sys.stderr, flush=True)
            measured = _measure(figure, server, noise)
            results.append((figure, measured))
            print(figure_table(figure, measured), end="\n\n", flush=True)
    print(noise_table(noise))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(as_json(results, noise), indent=1), encoding="utf-8")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("group", nargs="?", default="all", choices=("all", *GROUPS), help="which figures")
    parser.add_argument("--only", metavar="TEXT", default="", help="figures with this text in their titles")
    parser.add_argument("--quick", action="store_true", help="small and few: to see that everything works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single measurement there")
    return parser.parse_args()


def _prepare(chosen: Sequence[Figure]) -> None:
    """Make the environments before anything is measured."""
    for name in sorted({one.environment for figure in chosen for one in figure.contestants}):
        python_of(name)


@contextmanager
def _server(chosen: Sequence[Figure]) -> Iterator[Server | None]:
    if not any(one.database for figure in chosen for one in figure.contestants):
        yield None
        return
    with running_server() as server:
        yield server


def _measure(figure: Figure, server: Server | None, noise: Noise) -> list[Series]:
    def before_each() -> None:
        noise.measure_loop()
        if server is not None:
            noise.measure_select(server.dsn)

    def run(contestant: Contestant) -> dict[str, Any]:
        if not contestant.database or server is None:
            return run_measurement(contestant)
        with server.database() as dsn:
            return run_measurement(contestant, dsn)

    return compete(figure.contestants, rounds=figure.rounds, before_each=before_each, run=run)


if __name__ == "__main__":
    sys.exit(main())
