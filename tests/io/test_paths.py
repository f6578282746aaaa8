from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flowstone.io.filesystem import escape, file_name, split_location, unescape, version_of
from flowstone.testing.io_conformance import HOSTILE_PARTITIONS

texts = st.text(st.characters()) | st.text(st.sampled_from("aA.~+%@/\\ con0é\u0301\x00\ud800"), max_size=400)
RESERVED = {"con", "prn", "aux", "nul", "com1", "lpt9"}


@given(texts)
@example("")
@example("con.txt")
@example("." * 121)
@example("a" * 119 + "%" + "." * 5)
def test_reversible(text: str) -> None:
    assert unescape(escape(text)) == text
    assert version_of(file_name(text, ".json")) == text
    assert version_of(file_name(text, "")) == text


@given(texts)
def test_safe_on_every_file_system(text: str) -> None:
    for path in (escape(text), file_name(text, ".json")):
        assert path.isascii()
        assert path == path.lower()
        for segment in path.split("/"):
            assert 0 < len(segment) <= 200
            assert not segment.startswith(".")
            assert not segment.endswith((".", " "))
            assert segment.partition(".")[0] not in RESERVED
            assert not set(segment) & set('<>:"\\|?*')


@given(texts, texts)
def test_distinct_texts_stay_distinct_where_case_and_normal_form_are_lost(first: str, second: str) -> None:
    def folded(text: str) -> str:
        return unicodedata.normalize("NFD", escape(text)).casefold()

    assert (folded(first) == folded(second)) == (first == second)


@given(st.lists(texts, min_size=1, max_size=4))
def test_locations_split_into_what_they_were_joined_from(parts: list[str]) -> None:
    assert split_location("/".join(map(escape, parts))) == [escape(part) for part in parts]


@given(texts, texts)
def test_no_path_lies_inside_another(first: str, second: str) -> None:
    if first != second:
        assert not escape(first).startswith(escape(second) + "/")


def test_hostile_keys() -> None:
    assert len({escape(key).casefold() for key in HOSTILE_PARTITIONS}) == len(HOSTILE_PARTITIONS)


@given(st.text(st.sampled_from("abA.~+%@/0123e")))
@example("%41")
@example("a.")
@example("+%")
@example("..")
@example("%ff")
def test_only_the_chosen_form_is_valid(path: str) -> None:
    try:
        text = unescape(path)
    except ValueError:
        return
    assert escape(text) == path


@pytest.mark.parametrize("name", ["../x", ".tmp", "a/b", "A.json", "a..json", "", "a.json/../b"])
def test_foreign_file_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="file name"):
        version_of(name)
