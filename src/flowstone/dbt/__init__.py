"""The models, seeds and snapshots of a dbt project as assets, its tests as checks: `dbt_assets`."""

from __future__ import annotations

from flowstone.dbt.command import DbtError, DbtProjectError
from flowstone.dbt.declare import DbtAsset, DbtAssets, dbt_assets
from flowstone.dbt.steps import DbtConfig

__all__ = ["DbtAsset", "DbtAssets", "DbtConfig", "DbtError", "DbtProjectError", "dbt_assets"]
