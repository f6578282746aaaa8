from __future__ import annotations

import base64
import json
import math
import re
import traceback
from collections import deque
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import Path
from time import process_time
from types import MappingProxyType
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flowstone.core.clean import (
    ERROR_LIMIT,
    MAX_CHARACTERS,
    clean_metadata,
    clean_text,
    error_line,
    hide_values,
    mask_secrets,
)
from flowstone.errors import SerializationError

_ANY = st.text(st.characters(codec=None) | st.sampled_from("\x00\x1b[]m\ud800\u202e\n\t\r:@/='\""), max_size=300)


@given(_ANY, st.integers(1, 400))
@example("\x00" * 100, 100)
@example("x" * 1000, 1)
def test_the_result_is_harmless_and_not_longer_than_asked(text: str, limit: int) -> None:
    cleaned = clean_text(text, limit=limit)
    assert len(cleaned) <= limit
    cleaned.encode()
    assert not any(ord(char) < 32 and char not in "\t\n\r" for char in cleaned)
    assert not {"\x7f", "\x1b", "\u202e"} & set(cleaned)


@given(st.text(st.characters(categories=["L", "N", "P", "Zs"], exclude_characters=":=@"), max_size=200))
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert clean_text(text) == text


def test_long_texts_keep_their_ends() -> None:
    text = "start" + "x" * (10 * ERROR_LIMIT) + "end"
    cleaned = clean_text(text)
    assert cleaned.startswith("start")
    assert cleaned.endswith("end")
    assert "characters left out" in cleaned
    assert len(cleaned) <= ERROR_LIMIT


@pytest.mark.parametrize(
    "piece",
    [
        "x",
        "\x1b[",
        "\x1b]",
        "a://",
        "a://b:",
        "a://b:c",
        "password=",
        "password ='",
        "token = ",
        "a.",
        "\x00",
        "\ud800",
    ],
)
def test_hostile_texts_take_linear_time(piece: str) -> None:
    text = piece * (ERROR_LIMIT // len(piece))
    best = min(_seconds(text) for _ in range(2))
    # quadratic patterns took ten seconds and more for this
    assert best < 2


def _seconds(text: str) -> float:
    started = process_time()
    clean_text(text)
    return process_time() - started


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgresql://me:hunter2@host/db", "postgresql://me:***@host/db"),
        ("postgresql://:hunter2@host/db", "postgresql://:***@host/db"),
        ("see https://u:p%40ss@h and http://h:80/x", "see https://u:***@h and http://h:80/x"),
        ("password=hunter2", "password=***"),
        ("PASSWORD = 'hunter 2' x", "PASSWORD = *** x"),
        ('api_key="a b",x', "api_key=***,x"),
        ("host=h password=p user=u", "host=h password=*** user=u"),
        ("secret=s;token=t&pwd=p", "secret=***;token=***&pwd=***"),
        ("no secret here: password is unknown", "no secret here: password is unknown"),
    ],
)
def test_secrets_are_masked(text: str, masked: str) -> None:
    assert mask_secrets(text) == masked
    assert clean_text(text) == masked


@pytest.mark.parametrize("key", ["AKIA" + "ABCDEFGH234567QZ", "ASIA" + "ABCDEFGH234567QZ", "AIza" + "Sy-_9" * 7])
def test_keys_of_clouds_are_known_by_their_form(key: str) -> None:
    assert mask_secrets(f"denied for {key}, sorry") == "denied for ***, sorry"
    assert mask_secrets(f"x{key}") == f"x{key}"


def test_terminal_sequences_are_dropped() -> None:
    assert clean_text("a\x1b[1;31mb\x1b[0mc\x1b]0;title\x07d\x1bMe") == "abcde"
    assert (
        clean_text("nul \x00, surrogate \ud800, override \u202e.")
        == "nul \\x00, surrogate \\ud800, override \\u202e."
    )


PLANTED = "hunter2-planted"


@pytest.mark.parametrize(
    "text",
    [
        f"password={PLANTED}",
        f"PGPASSWORD={PLANTED}",
        f"DB_PASSWORD={PLANTED}",
        f"AWS_SECRET_ACCESS_KEY={PLANTED}",
        f"?access_token={PLANTED}",
        f"host=db sslpassword={PLANTED}",
        str({"password": PLANTED}),
        f'{{"password": "{PLANTED}"}}',
        f"password: {PLANTED}",
        f"Authorization: Bearer {PLANTED}",
        f"postgresql://me:{PLANTED}@h/x",
        f"postgresql://me:a@{PLANTED}@h/x",
        f"postgresql://me:a/{PLANTED}#@h/x",
        f"postgresql://me:{PLANTED}%40x@h/x",
        f"redis://:{PLANTED}@h:6379/0",
        f"amqp://u:{PLANTED}@h//",
        f"apiKey={PLANTED}",
        f"api-key: {PLANTED}",
        f"X-Api-Key: {PLANTED}",
        f"clientSecret={PLANTED}",
        f"client_secret='{PLANTED}'",
        f'accessToken: "{PLANTED}"',
        f"--password {PLANTED}",
        f"--db-password={PLANTED}",
        f"['psql', '--password', '{PLANTED}']",
        f"('password', '{PLANTED}')",
        f'["token", "{PLANTED}"]',
        f"db:\n  user: me\n  password: correct horse {PLANTED}\n  host: x",
        f"password: |\n  first\n  {PLANTED}\nhost: x",
        f"- name: DB_PASSWORD\n  value: {PLANTED}\n",
        f'{{"name": "API_TOKEN", "value": "{PLANTED}"}}',
        f'{{\\"password\\": \\"{PLANTED}\\"}}',
        repr(f'{{"password": "{PLANTED}"}}'),
        f"<password>{PLANTED}</password>",
        f"<wsse:Password Type='x'>{PLANTED}</x>",
        f"b'password': b'{PLANTED}'",
        f"password => '{PLANTED}'",
        f'password="a \\" {PLANTED}"',
        f"password = {PLANTED}",
        f"password='it''s {PLANTED}",
        f"headers={{'Authorization': 'Bearer {PLANTED}'}}",
        f"Authorization: Basic {PLANTED}",
        f"Proxy-Authorization: Digest username=x, response={PLANTED}",
        f"Cookie: session={PLANTED}; a=b",
        f"curl -u me:{PLANTED} https://x",
        f"curl --user me:{PLANTED} https://x",
        f"ALTER USER x PASSWORD '{PLANTED}'",
        f"identified by '{PLANTED}'",
        f"DB_PASSWORD=a,b&{PLANTED};c",
        f"secret_value={PLANTED}",
        f"password2={PLANTED}",
        f"password_old={PLANTED}",
        f"-----BEGIN RSA PRIVATE KEY-----\n{PLANTED}\n-----END RSA PRIVATE KEY-----",
        f"-----BEGIN PRIVATE KEY-----\n{PLANTED}",
        f"aws_session_token={PLANTED}",
        f"x-amz-security-token={PLANTED}",
        f"AccountKey={PLANTED};EndpointSuffix=x",
        f"SharedAccessKey={PLANTED}",
        f"sig={PLANTED}".replace("sig", "&sig"),
        f"smtp_pass={PLANTED}",
        f"MYSQL_PWD={PLANTED}",
        f"spring.datasource.password={PLANTED}",
        f"db[password]={PLANTED}",
        f"password%3D{PLANTED}%26x",
        f"url=postgresql%3A%2F%2Fme%3A{PLANTED}%40h",
        f"passphrase: {PLANTED}",
        f"credentials={PLANTED}",
        f"credential: {PLANTED}",
        f"privateKey={PLANTED}",
        f"passwd={PLANTED}",
        f"passwords=['a', '{PLANTED}']",
        f"secret: {{'a': '{PLANTED}'}}",
        f"Bearer {PLANTED}",
        f"password:\n  {PLANTED}\nhost: x",
        f"db:\n  password: |-\n    first\n\n    {PLANTED}",
        f"secret_key_base={PLANTED}",
        f"azure://id:{PLANTED}?tenantId=x",
        f"PASSWORD\t=\t{PLANTED}",
        f"password :{PLANTED}",
        f"password={PLANTED!r}, user='x'",
        f"Settings(password={PLANTED}, x=1)",
        f"password:='{PLANTED}'",
        f'export SECRET_KEY="{PLANTED}"',
        f"set -x PGPASSWORD {PLANTED}".replace("PGPASSWORD ", "PGPASSWORD="),
        f"Connection(password='abc, {PLANTED}')",
        f"oauth_client_secret={PLANTED}",
        f"id_token={PLANTED}",
        f"refresh_token={PLANTED}",
        f"jwt_token:{PLANTED}",
        f"GITHUB_TOKEN={PLANTED}",
        f"password='''{PLANTED}'''",
        f"DJANGO_SECRET_KEY={PLANTED}",
        f"signing_key={PLANTED}",
        f"secretKey: {PLANTED}",
        f"\x1b[31mpassword\x1b[0m={PLANTED}",
        f"pass\x00word={PLANTED}".replace("\x00", ""),
        f'"Password" : "{PLANTED}"',
        f"password\n={PLANTED}",
        f"ghp_{'a1' * 15}{PLANTED}",
        f"pw={PLANTED}",
        f"db_pw={PLANTED} user=me",
        f"smtpPw: {PLANTED}",
        f"{{'pw': '{PLANTED}'}}",
        f"--pw {PLANTED}",
        f"Token {PLANTED}-0123456789abcdef",
        f"aws_access_key_id={PLANTED}",
        f'"accessKeyId": "{PLANTED}"',
    ],
)
def test_secrets_are_masked_in_any_spelling_and_form(text: str) -> None:
    masked = clean_text(text)
    assert PLANTED not in masked
    assert mask_secrets(masked) == masked


@pytest.mark.parametrize(
    "text",
    [
        "password reset",
        "http://[::1]:80/x http://host:port/x http://{host}:{port} file://C:\\x http://h:8080, http://h:80.",
        "token_count=5",
        "tokens=5",
        "max_tokens=4096",
        "the password is wrong",
        'password authentication failed for user "x"',
        "no password supplied",
        "Unexpected token: <",
        "unexpected token '<'",
        "password=None",
        "password=***",
        "token: null",
        "PWD=/home/x",
        "OLDPWD=/x",
        "password_file=/run/secrets/x",
        "token_url=https://x/y",
        "secret_name=abc",
        "secretary: Ann",
        "http://h:80/x?email=a@b.c",
        "see http://localhost:8080",
        "git@github.com:a/b.git",
        "broken=5",
        "key=5",
        "primary_key=id",
        "partition_key=2024",
        "std::token::Kind",
        "password=$DB_PASSWORD",
        "password=${DB_PASSWORD}",
        "use --password to set it",
        "--token NAME  the token",
        "password=os.environ['X']",
        "tokenizer=bert",
        "passwordless: yes",
        "mailto:a@b.c",
        "10:30:05 user@host",
        "basic authentication",
        "bearer token required",
        "token_type=bearer",
        "password: None",
        "cookies=3",
        "Tokens: 5",
        "token bucket",
        "pass=3 fail=2",
        "bypass=1",
        "compass=north",
        "tests pass: 5",
        "password:",
        "secret",
        "a secret.",
        "'password' is a required property",
        "KeyError: 'password'",
        "missing field token",
        "password={}",
        "password=<redacted>",
        "first_pass=0.5",
        "xpw=5",
        "20 pW",
        "pwm=3",
        "token of the-partition-definition",
        "token 12345678901234567890",
        "Europe/Asia ASIATISCH",
    ],
)
def test_what_is_no_secret_is_left_alone(text: str) -> None:
    assert mask_secrets(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "x" * 10**5,
        "password=" * 10**5,
        "password: x\n" * 10**5,
        '"password": "' * 10**5,
        "a://b:c" * 10**5,
        "token " * 10**5,
        "password='" * 10**5,
        "-----BEGIN PRIVATE KEY-----" * 10**4,
        "password=a,b" * 10**5,
        "eyJ" * 10**5,
        ("eyJ" + "a" * 100 + ".") * 10**4,
        "lorem ipsum dolor sit amet secret token " * 25000,
        "%3A%2F%2F" * 10**5,
        "bearer " * 10**5,
        "password: |\n  x\n" * 10**4,
        "value " * 10**5,
        "password" + " " * 10**5 + "=x",
        "\\" * 10**5,
        "password" + "\\" * 10**5,
        "ghp_" * 10**5,
        " -u a:" * 10**5,
        "://" * 10**5,
        "<password>" * 10**5,
        "api_" * 10**5,
    ],
    ids=lambda text: repr(text[:20]),
)
def test_masking_hostile_texts_takes_linear_time(text: str) -> None:
    started = process_time()
    mask_secrets(text[:200_000])
    # a quadratic pattern takes minutes for these
    assert process_time() - started < 10


def test_what_follows_a_block_of_yaml_is_left_alone() -> None:
    text = "db:\n  password: |\n    a\n    b\n  host: x\npassword:\nuser: me"
    assert mask_secrets(text) == "db:\n  password: |\n    ***\n  host: x\npassword:\nuser: me"


def test_values_are_masked_in_the_forms_that_they_are_written_in() -> None:
    hide_values(
        [
            'p"l\\anted/1',
            "sh0rt",
            "a",
            "postgres",
            "1234",
            "-----BEGIN X-----\nmultiline-planted-line\n-----END X-----",
        ]
    )
    for text in (
        'p"l\\anted/1',
        "p%22l%5Canted%2F1",
        json.dumps('p"l\\anted/1'),
        repr('p"l\\anted/1'),
        "multiline-planted-line",
    ):
        assert "anted" not in mask_secrets(f"x{text}y")
    assert mask_secrets("sh0rt, xsh0rty, a postgres 1234") == "***, xsh0rty, a postgres 1234"
    encoded = base64.b64encode(b'p"l\\anted/1').decode()
    assert encoded not in mask_secrets(encoded)


def test_a_giant_text_is_cut_before_it_is_masked() -> None:
    masked = mask_secrets("lorem ipsum password=x " * 5_000_000)
    assert len(masked) < 2 * 1024 * 1024
    assert "password=x" not in masked


@pytest.mark.parametrize(
    ("raised", "line"),
    [
        (lambda: ValueError("no rows\nsee https://..."), "ValueError: no rows"),
        (lambda: ValueError("\nno rows"), "ValueError: no rows"),
        (ValueError, "ValueError"),
        (
            lambda: RuntimeError("child:\nTraceback (most recent call last):\n  File x\nKeyError: 1"),
            "RuntimeError: child:",
        ),
        (
            lambda: ExceptionGroup("two", [ValueError("a"), KeyError("b")]),
            "ExceptionGroup: two (2 sub-exceptions)",
        ),
        (lambda: SyntaxError("bad", ("f.py", 1, 2, "x =", 1, 3)), "SyntaxError: bad"),
    ],
)
@pytest.mark.parametrize("chained", [None, "cause", "context"])
def test_the_line_of_an_error_that_says_the_most(
    raised: Callable[[], Exception], line: str, chained: str | None
) -> None:
    try:
        try:
            raise KeyError("first\nand\nmore")
        except KeyError as first:
            if chained == "cause":
                raise raised() from first
            if chained == "context":
                raise raised()  # noqa: B904
        raise raised()
    except Exception as error:
        text = "".join(traceback.format_exception(error))
    assert error_line(text) == line


def test_other_texts_have_a_line_too() -> None:
    assert error_line("\n  Fatal: it ended\nmore") == "Fatal: it ended"
    assert (error_line(""), error_line(None), error_line("\n")) == ("", "", "")
    driver = 'psycopg.errors.UndefinedTable: relation "x" does not exist\nLINE 1: SELECT 1\n        ^'
    assert error_line(driver) == 'psycopg.errors.UndefinedTable: relation "x" does not exist'


@given(st.text(max_size=300))
def test_any_text_has_at_most_one_line(text: str) -> None:
    assert len(error_line(text).splitlines()) <= 1


_numbers = st.integers(-(2**1000), 2**1000) | st.floats()
_leaves = st.none() | st.booleans() | _numbers | st.text(st.characters(), max_size=20)
_values = st.recursive(
    _leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
)
_facts = st.dictionaries(st.text(st.characters(), max_size=8), _values, max_size=6)


def expected(value: Any) -> Any:
    """What is left of a value: texts apart, which are cleaned, it is the value itself."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[repr(value)]
    if isinstance(value, list):
        return [expected(one) for one in value]
    if isinstance(value, dict):
        return {name: expected(one) for name, one in value.items()}
    return value


@given(_facts)
def test_what_is_cleaned_survives_json_exactly(facts: dict[str, Any]) -> None:
    cleaned = clean_metadata(facts)
    document = json.dumps(cleaned, allow_nan=False)
    assert "\\u0000" not in document
    document.encode()
    json.dumps(cleaned, ensure_ascii=False).encode()  # no lone surrogates
    assert json.loads(document) == cleaned
    assert clean_metadata(cleaned) == cleaned


@given(st.dictionaries(st.text("abc", max_size=3), st.recursive(_numbers, st.lists), max_size=4))
def test_what_is_harmless_stays_as_it_is(facts: dict[str, Any]) -> None:
    assert clean_metadata(facts) == expected(facts)


def test_texts_are_cleaned() -> None:
    facts = {"a\x00": "nul \x00", "url": "postgresql://me:hunter2@host/db", "\ud800": "<b>\x1b[31mred"}
    assert clean_metadata(facts) == {
        "a\\x00": "nul \\x00",
        "url": "postgresql://me:***@host/db",
        "\\ud800": "<b>red",
    }


def test_numbers_of_libraries_are_numbers() -> None:
    facts = {"i": np.int64(3), "f": np.float32(0.5), "n": np.float64("nan"), "h": Fraction(1, 2)}
    assert clean_metadata(facts) == {"i": 3, "f": 0.5, "n": "NaN", "h": 0.5}
    assert [type(one) for one in clean_metadata(facts).values()] == [int, float, str, float]


class Colour(Enum):
    RED = "red"


class Unreadable(list[Any]):
    def __iter__(self) -> Any:
        return iter([1 // 0])


class Text(str):
    def __len__(self) -> int:
        raise RuntimeError

    __hash__ = str.__hash__
    __eq__ = __str__ = __repr__ = encode = isidentifier = __len__  # type: ignore[assignment]


PLAIN: list[tuple[object, object]] = [
    (np.bool_(True), True),
    (np.datetime64("2024-01-05"), "2024-01-05"),
    (np.array([1, 2]), [1, 2]),
    (np.array(1.5), 1.5),
    (np.array([[np.nan, 1.0]]), [["NaN", 1.0]]),
    (np.str_("a"), "a"),
    (Text("a"), "a"),
    ({Text("a b"): 1}, {"a b": 1}),
    (date(2024, 1, 5), "2024-01-05"),
    (datetime(2024, 1, 5, tzinfo=UTC), "2024-01-05T00:00:00+00:00"),
    (time(1, 2), "01:02:00"),
    (timedelta(minutes=2), 120.0),
    (pd.Timestamp("2024-01-05"), "2024-01-05T00:00:00"),
    (pd.Timedelta(seconds=3), 3.0),
    (pd.NaT, "NaT"),
    (pd.NA, None),
    (Decimal("1.50"), "1.50"),
    (Decimal("NaN"), "NaN"),
    (Path("/data/x.csv"), "/data/x.csv"),
    (UUID(int=0), "00000000-0000-0000-0000-000000000000"),
    (Colour.RED, "red"),
    ({"b", "a"}, ["a", "b"]),
    (frozenset({2, 1}), [1, 2]),
    ({"x": 1}.keys(), ["x"]),
    (range(2), [0, 1]),
    (deque(["z"]), ["z"]),
    (MappingProxyType({"a": (1,)}), {"a": [1]}),
]


@pytest.mark.parametrize(("value", "plain"), PLAIN, ids=lambda one: type(one).__name__)
def test_what_libraries_give_has_a_plain_form(value: object, plain: object) -> None:
    found = clean_metadata({"fact": value})["fact"]
    assert (type(found), found) == (type(plain), plain)
    assert clean_metadata({"fact": found}) == {"fact": found}


def _nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def _holding_itself() -> dict[str, Any]:
    facts: dict[str, Any] = {}
    facts["self"] = facts
    return facts


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"when": object()}, "cannot be recorded at metadata['when'] (type builtins.object)"),
        ({"rows": [1, {b"x"}]}, "cannot be recorded at metadata['rows'][1][...] (type builtins.bytes)"),
        ({1: 2}, "has the key int: keys must be text at metadata (type builtins.int). Write str(key)."),
        ({"a": {b"x": 1}}, "has the key bytes: keys must be text at metadata['a']"),
        ([1], "must be a dict"),
        ({"big": 2**5000}, "more than 1024 bits"),
        ({"rows": list(range(20_000))}, "holds more than 10,000 values"),
        ({"text": "x" * 100_000_000}, "holds more than 65,536 characters of text"),
        ({str(number): 1.5 for number in range(9_000)}, f"{MAX_CHARACTERS:,} is the most"),
        ({"deep": _nested(30)}, "nested more than 20 deep"),
        (_holding_itself(), "or holds itself"),
        ({"array": np.zeros(20_000)}, "holds more than 10,000 values at metadata['array']"),
        ({"bytes": np.array([b"x"])}, "cannot be recorded at metadata['bytes'] (type numpy.ndarray)"),
        ({"wrong": Unreadable()}, "cannot be read (ZeroDivisionError) at metadata['wrong']"),
        ({"frame": pd.DataFrame({"a": [1]})}, "cannot be recorded at metadata['frame'] (type pandas"),
        ({"class": dict}, "cannot be recorded at metadata['class'] (type builtins.type)"),
    ],
    ids=lambda one: one[:30] if isinstance(one, str) else "",
)
def test_what_is_no_small_fact_is_refused(facts: Any, why: str) -> None:
    with pytest.raises(SerializationError, match=re.escape(why)):
        clean_metadata(facts)


@pytest.mark.parametrize(
    "text",
    [
        "{'password': 'x-secret'}",
        '{"api_key": "x-secret"}',
        "Authorization: Bearer x-secret",
        "Bearer sk-proj-x-secret",
        "STRIPE_KEY=x-secret",
        "stripe-key: x-secret",
        "fernetKey = 'x-secret'",
        "SHOP_KEY=x-secret",
        "ssh_key=x-secret",
        "api key: x-secret",
    ],
)
def test_keys_and_bearers_in_any_spelling(text: str) -> None:
    """airflow#63921, airflow#27907: what is printed or recorded, whoever prints it."""
    assert "x-secret" not in mask_secrets(text)


@pytest.mark.parametrize(
    "text",
    [
        "partition_key=2024-01-01 run_key=a key=5 primary_key=id PARTITION_KEY=5 MY_SORT_KEY=7",
        "bearer authentication is required",
        "the API key is missing",
        "monkey: 5",
    ],
)
def test_other_keys_stay(text: str) -> None:
    assert mask_secrets(text) == text
