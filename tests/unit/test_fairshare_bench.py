"""The benchmark where the data of others is not at hand, as in a clone of the project alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks import _helios, fairshare


def test_a_clone_without_the_data_says_so_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(_helios, "DATA", tmp_path / "none")
    monkeypatch.setattr(fairshare, "GOALS", [])
    fairshare.helios()
    assert "The Helios replay is left out: there is no" in capsys.readouterr().out
    ((goal, *_, verdict),) = fairshare.GOALS
    assert (goal, verdict) == ("A4", "left out")


def test_the_plot_is_a_picture_with_every_number_that_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "plots" / "ratios.svg"
    _helios.plot({"ours": {"a": 1.0, "b": 0.9}, "theirs": {"a": 5.43, "b": 0.0}}, path)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<svg")
    assert [">5.4<" in text, ">0.9<" in text, text.count("<rect")] == [True, False, 7]
