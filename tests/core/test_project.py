from __future__ import annotations

import re
from importlib.resources import files

import pytest

from flowstone.core.project import Project, check_project
from flowstone.errors import ConfigurationError
from flowstone.stores.postgres.oban_jobs import EXPIRY_WORKER, WORKER

SHOP = Project("shop")


@pytest.mark.parametrize("name", ["default", "a", "shop", "shop_eu_2", "x" * 41])
def test_names(name):
    assert Project(name).name == name
    assert len(f"{Project(name).schema}.oban_insert") <= 63
    assert Project.of_schema(Project(name).schema) == Project(name)


@pytest.mark.parametrize(
    "name",
    ["", "Shop", "9lives", "shop-eu", "shop__eu", "_shop", "x" * 42, 'a"b', "a.b", "a b", "a'", "é", None, 3],
)
def test_other_names_are_refused_with_an_example(name):
    with pytest.raises(ConfigurationError, match="project='shop_eu'"):
        check_project(name)


@pytest.mark.parametrize(
    "schema", ["public", "flowstone_", "flowstones", "flowstone_default", "flowstone_A", "shop"]
)
def test_other_schemas_belong_to_no_project(schema):
    assert Project.of_schema(schema) is None


def test_what_is_qualified_is_rewritten_and_nothing_else():
    text = (
        "SELECT nextval('flowstone.step_ids'), 'flowstone', s.flowstone.x, myflowstone.t, "
        "'flowstone.executors.oban.job.StepWorker', 'flowstone.Expiry', metadata ->> 'flowstone.route' "
        "FROM flowstone.steps JOIN public.oban_jobs ON flowstone.steps.id = public.other.id::public.oban_job_state"
    )
    assert SHOP.sql(text) == (
        "SELECT nextval('flowstone_shop.step_ids'), 'flowstone', s.flowstone.x, myflowstone.t, "
        "'flowstone.executors.oban.job.StepWorker', 'flowstone.Expiry', metadata ->> 'flowstone.route' "
        "FROM flowstone_shop.steps JOIN flowstone_shop.oban_jobs ON flowstone_shop.steps.id = "
        "public.other.id::flowstone_shop.oban_job_state"
    )
    assert SHOP.sql(SHOP.sql(text)) == SHOP.sql(text)
    assert Project().sql(text) is text


def statements():
    for root, directory in (
        ("flowstone.stores.postgres", "sql"),
        ("flowstone.stores.postgres", "migrations"),
        ("flowstone.io", "sql"),
    ):
        pending = [files(root).joinpath(directory)]
        while pending:
            for entry in pending.pop().iterdir():
                if entry.is_dir():
                    pending.append(entry)
                elif entry.name.endswith(".sql"):
                    yield entry.name, entry.read_text(encoding="utf-8")


def test_no_statement_of_ours_keeps_a_table_of_the_default_project():
    # that none is without a schema is shown by the store's conformance in a database that has no other tables
    for name, text in statements():
        code = re.sub(r"--.*", "", SHOP.sql(text))
        code = re.sub(rf"'({re.escape(WORKER)}|{re.escape(EXPIRY_WORKER)})'", "''", code)
        assert not re.search(r"\b(flowstone|public)\.", re.sub(r"'[^']*'", "''", code)), name
        assert not re.search(r"'(flowstone|public)\.|(?i:\bschema flowstone\b)", code), name
