"""Lists of nodes as people write them, and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocator.upkeep.node_names import expand, fold


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("gpu07, gpu[08-10]", ["gpu07", "gpu08", "gpu09", "gpu10"]),
        ("a\nb  c", ["a", "b", "c"]),
        ("a, a", ["a"]),
        ("", []),
        ("x[3-1]", []),
        ("x[1-99999]", ["x[1-99999]"]),
    ],
)
def test_expanding(text: str, names: list[str]) -> None:
    assert expand(text) == names


def test_folding() -> None:
    assert fold(["gpu10", "gpu08", "gpu09", "login", "gpu12"]) == "gpu[08-10], gpu12, login"


@given(st.lists(st.from_regex(r"\A[a-z]{1,3}-?[0-9]{0,3}\Z"), max_size=40))
def test_what_is_folded_expands_to_the_same(names: list[str]) -> None:
    assert sorted(expand(fold(names))) == sorted(set(names))
