"""Curves over hyper-parameters, from the names of a figure's rows."""

import math

import pytest

from ser_lightning.reports.curves import Point, curve_figure, curve_tables, settings
from ser_lightning.reports.figures import png
from ser_lightning.reports.uncertainty import Estimate


def _point(ua: float, paper: float | None = None) -> Point:
    return Point(Estimate(ua, ua - 0.05, ua + 0.05, 10), paper)


def test_names_of_rows_are_taken_apart() -> None:
    assert settings("uniform alpha=0.1") == ("uniform", {"alpha": 0.1})
    assert settings("K=2, G=2") == ("", {"K": 2, "G": 2})
    assert settings("netvlad, K=4") == ("netvlad", {"K": 4})
    assert settings("AMS s=10 m=0.4") == ("AMS", {"s": 10, "m": 0.4})
    assert settings("no smoothing") == ("no smoothing", {})


def test_rows_that_differ_in_one_parameter_make_a_curve_in_the_order_of_its_values() -> None:
    points = {f"{kind} alpha={alpha}": _point(alpha) for kind in ("uniform", "unigram") for alpha in (0.3, 0.1, 0.2)}
    (table,) = curve_tables(points | {"no smoothing": _point(0.5)}).values()
    assert list(table["series"]) == ["uniform"] * 3 + ["unigram"] * 3
    assert list(table["value"]) == [0.1, 0.2, 0.3] * 2
    assert list(table["ours"]) == pytest.approx([0.1, 0.2, 0.3] * 2)
    assert list(table["low"]) == pytest.approx([0.05, 0.15, 0.25] * 2)


def test_two_parameters_that_were_swept_in_turn_make_a_curve_each() -> None:
    names = ["K=2, G=2", "K=4, G=2", "K=8, G=2", "K=8, G=0", "K=8, G=1"]
    tables = curve_tables({name: _point(0.5) for name in names})
    assert {key: list(table["value"]) for key, table in tables.items()} == {"K": [2, 4, 8], "G": [0, 1, 2]}
    assert set(tables["G"]["series"]) == {"K=8"}


def test_two_points_are_no_curve_and_rows_that_were_not_run_are_gaps() -> None:
    assert curve_tables({"K=2": _point(0.5), "K=4": _point(0.6)}) == {}
    assert curve_tables({f"K={k}": Point(None, 60.0) for k in (2, 3, 4)}) == {}
    table = curve_tables({"K=2": _point(0.5), "K=3": Point(None, 62.6), "K=4": _point(0.6, 61.0)})["K"]
    assert math.isnan(table["ours"][1])
    assert list(table["paper"].fillna(0)) == pytest.approx([0, 0.626, 0.61])  # fractions, as in every file
    assert png(curve_figure(table, "K", "UA", "title")).startswith(b"\x89PNG")


def test_the_picture_has_intervals_and_the_papers_points() -> None:
    table = curve_tables({f"K={k}": _point(k / 10, 50.0 if k == 3 else None) for k in (2, 3, 4)})["K"]
    (axes,) = curve_figure(table, "K", "UA", "title").axes
    line, stars = axes.lines
    assert list(line.get_ydata()) == pytest.approx([20, 30, 40])
    assert list(stars.get_ydata()) == [50]
    assert len(axes.collections[0].get_segments()) == 3  # type: ignore[attr-defined]
