"""What `dbt_assets` makes of a manifest; the manifest is one that dbt wrote, cut to what is read."""

from __future__ import annotations

import json
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from tests.dbt.projects import MANIFEST, copy_shop

from flowstone import Asset, DailyPartitions, FlowStone, RetryPolicy, asset
from flowstone.core.check import Check
from flowstone.core.step import Severity
from flowstone.dbt import DbtAssets, DbtProjectError, dbt_assets
from flowstone.errors import DefinitionError, UnknownOptionError

RELATIONSHIPS = "relationships_stg_orders_customer_id__id__ref_stg_customers_"
DAYS = DailyPartitions("2024-01-01", end="2024-01-05")


@pytest.fixture
def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(MANIFEST.read_bytes())
    return found


def declare(document: object, **options: Any) -> DbtAssets:
    return dbt_assets(document, project_dir="shop", **options)  # type: ignore[arg-type]


def inputs(one: Asset) -> set[str]:
    return {dependency.asset for dependency in one.dependencies}


def checks_of(shop: DbtAssets, name: str) -> dict[str, Check]:
    return {check.name: check for check in shop.checks if check.asset == name}


def test_nodes_become_assets_with_what_the_project_says(document: dict[str, Any]) -> None:
    shop = declare(document)
    totals = shop["customer_totals"]
    assert totals.tags == {"dbt", "model", "gold"}
    assert totals.group == "finance"
    assert totals.description.splitlines()[0] == "What each customer spent in all."
    assert "- customer_id (integer): The customer." in totals.description
    assert totals.where.endswith("models/customer_totals.sql:1")
    assert shop["customers"].tags == {"dbt", "seed"}
    assert shop["customers_history"].tags == {"dbt", "snapshot"}
    assert inputs(shop["customers_history"]) == {"stg_customers"}
    assert "ephemeral_totals" not in shop
    assert {"stg_orders", "stg_customers"} <= inputs(totals), "through the ephemeral model"
    FlowStone.for_testing(shop, checks=shop.checks)


def test_duckdb_is_written_by_one_step_at_a_time(document: dict[str, Any]) -> None:
    shop = declare(document)
    assert shop.limits == {"duckdb shop.duckdb": 1}
    assert all(one.concurrency["duckdb shop.duckdb"] == 1 for one in shop)
    document["metadata"]["adapter_type"] = "postgres"
    assert declare(document).limits == {}
    assert declare(document, concurrency={"warehouse": 3})["report"].concurrency == {"warehouse": 3}


def test_tests_become_checks_of_their_node(document: dict[str, Any]) -> None:
    shop = declare(document)
    orders = checks_of(shop, "stg_orders")
    assert orders.keys() == {"unique_stg_orders_id", "not_null_stg_orders_id", "not_null_stg_orders_amount"}
    assert (orders["unique_stg_orders_id"].blocking, orders["unique_stg_orders_id"].severity) == (
        True,
        Severity.ERROR,
    )
    warning = orders["not_null_stg_orders_amount"]
    assert (warning.blocking, warning.severity) == (False, Severity.WARNING)
    assert {"no_negative_totals", "totals_of_nobody_are_zero"} <= checks_of(shop, "customer_totals").keys()
    assert checks_of(shop, "raw.orders").keys() == {"source_unique_raw_orders_id", "freshness"}
    assert not any(check.blocking for check in declare(document, blocking=False).checks)


def test_a_test_of_two_models_runs_when_both_are_there(document: dict[str, Any]) -> None:
    """dagster#17628, dagster#16727: it ran with one of the two, before the other was there."""
    shop = declare(document)
    assert inputs(shop[RELATIONSHIPS]) == {"stg_orders", "stg_customers"}
    assert RELATIONSHIPS in inputs(shop["customer_totals"]), "what reads both waits for the test"
    assert RELATIONSHIPS not in inputs(shop["daily_revenue"]) | inputs(shop["report"])
    assert RELATIONSHIPS not in inputs(declare(document, blocking=False)["customer_totals"])


def test_a_test_of_something_that_was_not_chosen_is_left_out(document: dict[str, Any]) -> None:
    shop = declare(document, select="stg_orders")
    assert RELATIONSHIPS not in shop
    assert "revenue_adds_up" not in checks_of(shop, "stg_orders")
    below = declare(document, select="daily_revenue")
    assert checks_of(below, "daily_revenue").keys() == {"revenue_adds_up"}, "its input is taken to be there"


def test_a_singular_test_of_a_model_and_its_input_belongs_to_the_model(document: dict[str, Any]) -> None:
    """dagster#18595: singular tests were left out."""
    assert checks_of(declare(document), "daily_revenue").keys() == {"revenue_adds_up"}


def test_sources_are_observed_or_made_by_assets(document: dict[str, Any]) -> None:
    @asset
    def orders() -> None: ...

    shop = declare(document, sources={"raw.orders": orders})
    assert "raw.orders" not in shop
    # dagster#33982: tests of sources were dropped; they run once the asset is published, and hold up who reads it
    assert inputs(shop["source_unique_raw_orders_id"]) == {"orders"}
    assert inputs(shop["stg_orders"]) == {"orders", "source_unique_raw_orders_id"}
    FlowStone.for_testing([orders, *shop], checks=shop.checks)
    document["sources"]["source.shop.raw.orders"]["meta"] = {"flowstone": {"asset": "web_orders"}}
    assert "web_orders" in inputs(declare(document)["stg_orders"])
    with pytest.raises(DefinitionError, match=r"no source 'raw\.order'.* Did you mean 'raw\.orders'"):
        declare(document, sources={"raw.order": orders})


def test_one_asset_makes_several_sources(document: dict[str, Any]) -> None:
    second = {
        **document["sources"]["source.shop.raw.orders"],
        "name": "refunds",
        "fqn": ["shop", "raw", "refunds"],
    }
    document["sources"]["source.shop.raw.refunds"] = second
    document["nodes"]["model.shop.stg_orders"]["depends_on"]["nodes"].append("source.shop.raw.refunds")
    names = {"raw.orders": "loaded", "raw.refunds": "loaded"}
    shop = declare(document, sources=names, blocking=False, options=lambda node: {"deps": ["calendar"]})
    assert inputs(shop["stg_orders"]) == {"loaded", "calendar"}


def test_incremental_models_have_the_partitions(document: dict[str, Any]) -> None:
    shop = declare(document, partitions=DAYS)
    assert [one.name for one in shop if one.partitions is not None] == ["daily_revenue"]
    assert shop["daily_revenue"].concurrency["dbt:model.shop.daily_revenue"] == 1
    every = declare(document, options=lambda node: {"partitions": DAYS} if node.name == "report" else None)
    assert every["report"].partitions is DAYS


def test_options_of_a_node(document: dict[str, Any]) -> None:
    slow = RetryPolicy(max_attempts=1)
    shop = declare(document, options=lambda node: {"name": f"shop/{node.name}", "queue": "dbt", "retry": slow})
    assert shop["shop/report"].queue == "dbt"
    assert shop["shop/report"].retry is slow
    assert inputs(shop["shop/report"]) == {"shop/customer_totals"}
    with pytest.raises(UnknownOptionError, match=r"'tag'.*Did you mean 'tags'"):
        declare(document, options=lambda node: {"tag": ["a"]})


def test_what_does_not_compile_is_not_tried_again(document: dict[str, Any]) -> None:
    retry = declare(document)["report"].retry
    assert retry is not None
    assert retry.fatal_on == (DbtProjectError,)


def test_the_code_version_follows_file_and_macros(document: dict[str, Any]) -> None:
    before = {one.name: one.code_version for one in declare(document)}
    document["macros"]["macro.shop.fail_on_request"]["macro_sql"] += " "
    changed = {one.name for one in declare(document) if one.code_version != before[one.name]}
    assert changed == {"stg_orders", "stg_customers", "customer_totals", "report"}


def test_the_code_version_follows_what_is_text_within_a_model(document: dict[str, Any]) -> None:
    """Also an ephemeral model within an ephemeral model, and its macros."""
    nodes = document["nodes"]
    outer = nodes["model.shop.ephemeral_totals"]
    inner = {**deepcopy(outer), "name": "inner", "depends_on": {"nodes": [], "macros": ["macro.shop.inner"]}}
    nodes["model.shop.inner"] = inner
    outer["depends_on"]["nodes"].append("model.shop.inner")
    document["macros"]["macro.shop.inner"] = {"macro_sql": "1", "depends_on": {"macros": []}}
    before = {one.name: one.code_version for one in declare(document)}
    inner["raw_code"] += " "
    first = {one.name: one.code_version for one in declare(document)}
    assert {name for name in first if first[name] != before[name]} == {"customer_totals"}
    document["macros"]["macro.shop.inner"]["macro_sql"] = "2"
    second = {one.name: one.code_version for one in declare(document)}
    assert {name for name in second if second[name] != first[name]} == {"customer_totals"}


def model(name: str, *reads: str, **more: Any) -> dict[str, Any]:
    """Return a model of a manifest that reads others."""
    parents = {"nodes": [f"model.shop.{one}" for one in reads]}
    return {"resource_type": "model", "name": name, "fqn": ["shop", name], "depends_on": parents, **more}


def manifest_of(*models: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"project_name": "shop"}, "nodes": {f"model.shop.{one['name']}": one for one in models}}


def test_models_that_read_all_before_them_in_any_order() -> None:
    """Each of a few models reads all of the others that it may, and the last is named first."""
    names = [f"m{place}" for place in range(8)]
    models = [model(name, *names[:place]) for place, name in enumerate(names)]
    shop = declare(manifest_of(*reversed(models)))
    assert {one.name: len(inputs(one)) for one in shop} == {name: place for place, name in enumerate(names)}
    assert FlowStone.for_testing(shop).graph.order[0] == "m0"


@pytest.mark.parametrize(
    "models",
    [
        [model("a", "a")],
        [model("a", "b"), model("b", "a")],
        [model("c"), model("a", "b", "c"), model("b", "d"), model("d", "a")],
    ],
    ids=["itself", "two", "three"],
)
def test_models_that_read_each_other_in_a_circle(models: list[dict[str, Any]]) -> None:
    with pytest.raises(DefinitionError, match=r"read each other in a circle, .*model\.shop\.a"):
        declare(manifest_of(*models))


def test_ephemeral_models_within_ephemeral_models() -> None:
    """Long chains of them, many ways through them, and circles, which dbt refuses when it compiles."""
    ephemeral = {"config": {"materialized": "ephemeral"}}
    chain = [model("e0", "base", **ephemeral)]
    chain += [model(f"e{place}", f"e{place - 1}", **ephemeral) for place in range(1, 1500)]
    assert inputs(declare(manifest_of(model("base"), *chain, model("top", "e1499")))["top"]) == {"base"}
    pairs = [model("p0a", "base", **ephemeral), model("p0b", "base", **ephemeral)]
    for place in range(1, 30):
        pairs += [model(f"p{place}{side}", f"p{place - 1}a", f"p{place - 1}b", **ephemeral) for side in "ab"]
    assert inputs(declare(manifest_of(model("base"), *pairs, model("top", "p29a", "p29b")))["top"]) == {"base"}
    circle = [model("e1", "e2", **ephemeral), model("e2", "e1", "base", **ephemeral)]
    assert inputs(declare(manifest_of(model("base"), *circle, model("top", "e1")))["top"]) == {"base"}


def test_versions_of_a_model_are_assets_of_their_own(document: dict[str, Any]) -> None:
    """dagster#16005: both were one asset."""
    first = document["nodes"]["model.shop.report"]
    second = {**deepcopy(first), "version": 2, "fqn": ["shop", "report", "v2"]}
    document["nodes"]["model.shop.report.v2"] = second
    assert {"report", "report.v2"} <= {one.name for one in declare(document)}


def test_two_nodes_of_one_name(document: dict[str, Any]) -> None:
    twin = {**deepcopy(document["nodes"]["model.shop.report"]), "package_name": "other"}
    document["nodes"]["model.other.report"] = twin
    with pytest.raises(DefinitionError, match=r"model\.(shop|other)\.report and .* be the asset 'report'"):
        declare(document)
    declare(document, options=lambda node: {"name": f"{node.package}.{node.name}"})


@pytest.mark.parametrize(
    ("select", "exclude", "found"),
    [
        ("report", None, {"report"}),
        ("1+report", None, {"report", "customer_totals"}),
        ("stg_orders", None, {"raw.orders", "stg_orders"}),
        ("tag:staging", None, {"raw.orders", "stg_orders", "stg_customers"}),
        ("tag:gold,config.materialized:incremental", None, {"daily_revenue"}),
        (["resource_type:seed", "resource_type:snapshot"], "countries", {"customers", "customers_history"}),
        ("source:raw+", "tag:gold report", {"raw.orders", "stg_orders"}),
        ("path:models/staging", "source:raw.orders", {"stg_orders", "stg_customers"}),
        ("staging.*", None, {"raw.orders", "stg_orders", "stg_customers"}),
        ("@customers_history", None, {"customers", "stg_customers", "customers_history"}),
    ],
)
def test_selections(document: dict[str, Any], select: Any, exclude: Any, found: set[str]) -> None:
    shop = declare(document, select=select, exclude=exclude)
    assert {one.name for one in shop if one.node is not None} == found
    FlowStone.for_testing(shop, checks=shop.checks)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"select": "state:modified"}, "method 'state' of 'state:modified'.*Known: fqn"),
        ({"select": "nothing_like_it"}, "nothing of the project 'shop' is left"),
        ({"select": 5}, "select=5.*give a text"),
        ({"exclude": [""]}, "'' selects nothing"),
        ({"arguments": "--threads 4"}, "give a list"),
        ({"arguments": ["--select=x"]}, "--select=x is set by each step"),
        ({"options": {"name": "x"}}, "give a function of a node"),
        ({"options": lambda node: [node]}, "returned .* return a dict"),
        ({"blocking": "yes"}, "blocking='yes'"),
        ({"sources": ["raw.orders"]}, "give a mapping"),
        ({"sources": {"raw.orders": 5}}, "give an asset, or its name"),
        ({"vars": "a: 1"}, "give a mapping by name"),
        ({"concurrency": 4}, "give a mapping by name"),
        ({"profiles_dir": 4}, "give the path of a directory"),
        ({"partitions": "daily"}, "not a partitions definition"),
        ({"profile": ["dev"]}, "profile=.*give its name, as text"),
        ({"target": "a\0b"}, "target=.*give its name, as text"),
        ({"dbt_executable": 5}, "dbt_executable=5.*give its name"),
        ({"arguments": ["--threads\0"]}, "no text of a command line"),
        ({"environment": {"A=B": "x"}}, "no variable has = in its name"),
        ({"environment": {"PASSWORD": None}}, r"environment=\{'PASSWORD': \.\.\.\}\): give text"),
        ({"environment": {"PASSWORD": "a\0b"}}, r"environment=\{'PASSWORD': \.\.\.\}\): give text"),
        ({"vars": {"share": float("nan")}}, "vars=.*cannot be JSON"),
        ({"profiles_dir": "~nobody-of-this-name/shop"}, "profiles_dir="),
        ({"options": lambda node: {"deps": "orders"}}, "deps='orders'.*give a list of assets"),
    ],
)
def test_wrong_arguments(document: dict[str, Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        declare(document, **options)


def test_a_dbt_that_is_not_there(document: dict[str, Any]) -> None:
    """dagster#33904."""
    shop = declare(document, dbt_executable="/opt/no-dbt", select="countries")
    with pytest.raises(DefinitionError, match="dbt_executable='/opt/no-dbt' is no program"):
        FlowStone.for_testing(shop).materialize("countries")


def test_variables_of_a_partition_are_a_dict(document: dict[str, Any]) -> None:
    shop = declare(document, partitions=DAYS, select="daily_revenue", partition_vars=lambda *_: "a: 1")
    with pytest.raises(DefinitionError, match=r"partition_vars=.*returned .a: 1..*give a dict"):
        FlowStone.for_testing(shop).materialize("daily_revenue", partition="2024-01-02")


def test_misspelt_options(document: dict[str, Any]) -> None:
    with pytest.raises(UnknownOptionError, match=r"'selct'.*Did you mean 'select'"):
        declare(document, selct="report")


def test_manifests_that_are_none(tmp_path: Path) -> None:
    """dagster#33904, dagster#4935: what is wrong, where, and what to run."""
    project = copy_shop(tmp_path)
    assert dbt_assets(project)["report"].where == f"{project}/models/report.sql:1"
    (project / "target" / "manifest.json").unlink()
    with pytest.raises(
        DefinitionError, match=f"no manifest at {project}/target.*`dbt parse --project-dir {project}`"
    ):
        dbt_assets(project)
    with pytest.raises(DefinitionError, match="no manifest at"):
        dbt_assets(tmp_path / "elsewhere" / "manifest.json")
    (project / "target" / "manifest.json").write_text('{"nodes": ')
    with pytest.raises(DefinitionError, match="cannot be read as a manifest"):
        dbt_assets(project)
    (project / "target" / "manifest.json").write_text('{"results": []}')
    with pytest.raises(DefinitionError, match="is no manifest of dbt"):
        dbt_assets(project)
    with pytest.raises(DefinitionError, match="nothing says where the project lies"):
        dbt_assets(json.loads(MANIFEST.read_bytes()))
    with pytest.raises(DefinitionError, match="give the path"):
        dbt_assets(5)  # type: ignore[arg-type]


ODD = (5, 1.5, True, "x", [1], {"a": 5}, {"a": [None]}, {"a": {"depends_on": 5, "config": "x", "columns": [1]}})


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_a_manifest_that_dbt_did_not_write_so(document: dict[str, Any], odd: object) -> None:
    """Whatever stands in any place of it: it is read, or refused in words."""
    test = next(name for name, one in document["nodes"].items() if one["resource_type"] == "test")
    places = [(section,) for section in document]
    places += [
        (section, name, field)
        for section, name in (
            ("nodes", "model.shop.report"),
            ("nodes", test),
            ("sources", "source.shop.raw.orders"),
            ("macros", "macro.shop.fail_on_request"),
        )
        for field in document[section][name]
    ]
    for *above, last in places:
        changed = deepcopy(document)
        part = changed
        for one in above:
            part = part[one]
        part[last] = odd
        with suppress(DefinitionError):
            declare(changed)


def test_a_manifest_that_is_nested_without_end(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("[" * 100_000)
    with pytest.raises(DefinitionError, match="cannot be read as a manifest"):
        declare(tmp_path / "manifest.json")


def test_what_a_project_knows_by_name(document: dict[str, Any]) -> None:
    shop = declare(document)
    assert shop[0] in shop
    assert len(shop) == 10
    with pytest.raises(KeyError, match="Did you mean 'report'"):
        shop["reprot"]
