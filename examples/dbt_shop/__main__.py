"""Parses the project, runs the pipeline in memory, shows the checks. `python -m dbt_shop`."""

from __future__ import annotations

import tempfile
from pathlib import Path

from dbt_shop.pipeline import build, prepare
from flowstone import Settings


def main(directory: Path) -> None:
    """Run it below a directory."""
    prepare(directory)
    with build(directory, settings=Settings()) as flow:  # in memory, whatever the environment says
        result = flow.materialize_all("letter")
        print(result.value)
        for found in flow.checks.latest():
            print(f"{found.asset}: {found.check} {'passed' if found.passed else 'failed'}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        main(Path(place))
