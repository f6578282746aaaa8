from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flowstone.core.text import ERROR_LIMIT, clean_text, mask_secrets

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
    started = time.process_time()
    clean_text(text)
    return time.process_time() - started


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


def test_terminal_sequences_are_dropped() -> None:
    assert clean_text("a\x1b[1;31mb\x1b[0mc\x1b]0;title\x07d\x1bMe") == "abcde"
    assert (
        clean_text("nul \x00, surrogate \ud800, override \u202e.")
        == "nul \\x00, surrogate \\ud800, override \\u202e."
    )
