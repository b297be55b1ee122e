"""Cells of CSV files that spreadsheet programs would run as formulas."""

import pytest

from dd_bench.runtime.spreadsheet import csv_cell


@pytest.mark.parametrize(
    "text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", " =1", "\n=1", "\uff1d1", "-", "=", "- 1"]
)
def test_formulas_become_text(text):
    assert csv_cell(text) == f"'{text}"


@pytest.mark.parametrize("start", ["\t", "\r"])
def test_control_characters_do_not_start_a_cell(start):
    assert csv_cell(f"{start}=1+1") == "'\ufffd=1+1"


@pytest.mark.parametrize(
    "value", ["-0.5", "+1e-3", "-0.5 -0.25 1", "dm", "random, hard", "", None, -0.5, 3, "{}"]
)
def test_numbers_and_other_text_are_not_changed(value):
    assert csv_cell(value) == value


def test_text_direction_cannot_be_changed():
    assert csv_cell("dm\u202eevil\u2066") == "dm\ufffdevil\ufffd"
