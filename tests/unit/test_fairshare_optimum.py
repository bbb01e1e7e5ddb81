"""Levels are the lexicographic max-min optimum, which linear programs find in quite another way (A1)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.benchmarks._lexicographic import distances
from tests.fairshare_cases import random_case


@pytest.mark.parametrize("seed", range(100, 112))
def test_every_share_is_the_optimum_rounded(seed: int) -> None:
    case = replace(random_case(seed, size=10), fixed={})
    rounded, exact = distances(case, case.divide())
    assert exact < 1e-4
    assert rounded < 1 + 1e-4
