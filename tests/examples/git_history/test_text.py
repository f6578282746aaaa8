from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from git_history.markup import escape, isolated
from git_history.text import display, from_text, to_text

private_use = st.text(st.characters(min_codepoint=0xF770, max_codepoint=0xF810)).map(str.encode)
raw = st.one_of(st.binary(), st.text().map(str.encode), private_use)


@given(raw)
@example("\uf7ff\uf780".encode())
@example(b"\xed\xa0\x80")  # an encoded surrogate
def test_every_byte_string_comes_back(data: bytes) -> None:
    text = to_text(data)
    assert text.encode("utf-8").decode("utf-8") == text
    assert from_text(text) == data


@given(st.text(st.characters(exclude_categories=["Cs", "Co"])))
def test_valid_text_stays_as_it_is(text: str) -> None:
    assert to_text(text.encode()) == text


@given(raw, st.integers(min_value=8, max_value=200))
def test_what_is_displayed_is_one_short_visible_line(data: bytes, limit: int) -> None:
    shown = display(to_text(data), limit=limit)
    assert len(shown) <= limit
    assert len(shown.splitlines()) <= 1
    hidden = {"Cc", "Cf", "Zl", "Zp", "Co", "Cs"}
    assert not [each for each in shown if unicodedata.category(each) in hidden and each not in "\u200c\u200d"]


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"caf\xe9", "caf\\xe9"),
        ("a\u202eb\u2066".encode(), "a\\u202eb\\u2066"),
        (b"new\nline\ttab\x1b[31m", "new\\nline\\ttab\\x1b[31m"),
        ("👩‍💻 Zoë".encode(), "👩‍💻 Zoë"),
        (b"", ""),
    ],
)
def test_display(data: bytes, shown: str) -> None:
    assert display(to_text(data)) == shown


def test_markup_is_escaped_and_keeps_the_full_text_as_tooltip() -> None:
    assert escape("\"><script>'") == "&quot;&gt;&lt;script&gt;&#x27;"
    assert isolated("y" * 200, limit=5) == f'<bdi title="{"y" * 200}">yy…yy</bdi>'
