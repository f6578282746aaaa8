from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstone.errors import ConfigurationError, FlowStoneError
from flowstone.stores.postgres.dsn import address_of, masked_dsn, parse_dsn


@pytest.mark.parametrize(
    ("dsn", "shown"),
    [
        ("postgresql://ann:s3cret@db:5432/data", "postgresql://ann:***@db:5432/data"),
        ("postgres://ann@db/data", "postgresql://ann@db/data"),
        ("postgresql://ann:p%40ss%2Fw@[::1]:5432/d", "postgresql://ann:***@[::1]:5432/d"),
        ("host=db user=ann password='s 3cret' dbname=data", "postgresql://ann:***@db/data"),
        ("postgresql://ann@/data?host=%2Frun%2Fpg&password=x9", "postgresql://ann:***@/data?host=/run/pg"),
        ("host=a,b port=1,2 user=u", "postgresql://u@/?host=a,b&port=1,2"),
        ("postgresql://db/d?sslpassword=k3y&sslmode=require", "postgresql://db/d?sslmode=require&sslpassword=***"),
    ],
)
def test_masked(dsn, shown):
    assert masked_dsn(parse_dsn(dsn)) == shown


@pytest.mark.parametrize(
    "dsn",
    [
        "",
        "   ",
        "hunter2",
        "mysql://ann:hunter2@db/data",
        "postgresql+asyncpg://ann:hunter2@db/data",
        "postgresql://ann:hunter2@db:port/data",
        "postgresql://ann:hunter2@db:70000/data",
        "postgresql://ann:hunter2@db/data?hunter2=1",
        "postgresql://ann:hunter2@db/%zz",
        "postgresql://ann:hunter2@db/data?connect_timeout=0",
        "postgresql://ann:hunter2@db/data?connect_timeout=soon",
        "password=a hunter2=b",
        "host=db password='hunter2",
        'host=db password=a"hunter2" x',
    ],
)
def test_what_cannot_be_understood_is_refused_without_showing_it(dsn):
    with pytest.raises(ConfigurationError) as caught:
        parse_dsn(dsn)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@given(st.text(max_size=60))
def test_any_text_is_understood_or_refused_with_our_error(text):
    with suppress(FlowStoneError):
        masked_dsn(parse_dsn(text))


@given(st.text(st.characters(min_codepoint=33, exclude_categories=["Cs"]), min_size=12))
def test_no_password_is_shown(password):
    quoted = password.replace("\\", "\\\\").replace("'", "\\'")
    assert password not in masked_dsn(parse_dsn(f"host=db user=u password='{quoted}'"))


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "psycopg_async"])
def test_the_form_of_sqlalchemy_is_understood(driver):
    assert parse_dsn(f"postgresql+{driver}://ann:p%40ss@db:6432/data?sslmode=require") == {
        "user": "ann",
        "password": "p@ss",
        "host": "db",
        "port": "6432",
        "dbname": "data",
        "sslmode": "require",
    }


def test_engines_and_pools_report_their_address():
    from psycopg_pool import ConnectionPool

    pool = ConnectionPool(
        "postgresql://ann@db/data",
        kwargs={"autocommit": True, "password": "p@ss", "row_factory": None},
        open=False,
    )
    found = parse_dsn(address_of(pool))
    assert found == {"user": "ann", "host": "db", "dbname": "data", "password": "p@ss"}
    alchemy = pytest.importorskip("sqlalchemy")
    for url in ("postgresql+psycopg://ann:p%40ss@db/data", "postgresql+psycopg:///data?host=%2Ftmp&port=6432"):
        engine = alchemy.create_engine(url)
        assert parse_dsn(address_of(engine)) == parse_dsn(address_of(engine.url)) == parse_dsn(url)
    for wrong in (alchemy.create_engine("sqlite://"), alchemy.create_engine("postgresql+psycopg://"), object(), 5):
        with pytest.raises(ConfigurationError, match="give a URL"):
            address_of(wrong)


def test_an_app_on_a_pool(database_url, tmp_path):
    from psycopg_pool import ConnectionPool

    from flowstone import FlowStone, asset

    @asset
    def one():
        return 1

    with ConnectionPool(database_url, min_size=1, open=True) as pool, FlowStone([one], database_url=pool) as flow:
        assert flow.materialize("one", executor="sync").value == 1
