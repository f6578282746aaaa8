"""The dbt project of these tests, copied for each, and the database it works in."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

SHOP = Path(__file__).parent / "shop"
MANIFEST = Path(__file__).parent / "manifest.json"
DBT = Path(sys.executable).with_name("dbt")

ORDERS = """
CREATE SCHEMA raw;
CREATE TABLE raw.orders AS SELECT * FROM (VALUES
  (1, 1, 10, TIMESTAMP '2024-01-01 10:00'),
  (2, 2, 20, TIMESTAMP '2024-01-02 11:00'),
  (3, 1, 5, TIMESTAMP '2024-01-02 12:00')) AS t (id, customer_id, amount, ordered_at);
"""


def copy_shop(directory: Path) -> Path:
    """Copy the project, with the manifest that dbt wrote for it."""
    project = directory / "shop"
    shutil.copytree(SHOP, project)
    (project / "target").mkdir()
    shutil.copy(MANIFEST, project / "target")
    return project


def parse(project: Path, *options: str) -> None:
    """Have dbt write the manifest."""
    command = [str(DBT), "--no-version-check", "-q", "parse", "--project-dir", str(project), *options]
    subprocess.run(command, check=True, cwd=project, timeout=300)
