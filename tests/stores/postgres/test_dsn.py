from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstone.errors import ConfigurationError, FlowStoneError
from flowstone.stores.postgres.dsn import masked_dsn, parse_dsn


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
        "postgresql+psycopg://ann:hunter2@db/data",
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
