"""Curves over the hyper-parameters in which configurations differ."""

import math

import pytest

from ser_lightning.reports.curves import Point, curve_figure, curve_tables
from ser_lightning.reports.figures import png
from ser_lightning.reports.systems import Configured
from ser_lightning.reports.uncertainty import Estimate

KEY = "model.init_args.pooling.init_args."


def _estimate(ua: float) -> Estimate:
    return Estimate(ua, ua - 0.05, ua + 0.05, 10)


def _point(
    ours: float | None, paper: float | None = None, experiment: str = "e", corpus: str = "c", **settings: object
) -> Point:
    named = {f"{KEY}{name}": value for name, value in settings.items()}
    configured = Configured(("p", experiment, corpus), {"trainer.max_epochs": 9} | named)
    return Point(configured, None if ours is None else _estimate(ours), paper)


def test_configurations_that_differ_in_one_number_make_a_curve() -> None:
    points = [_point(a, experiment=kind, alpha=a) for kind in ("uniform", "unigram") for a in (0.3, 0.1, 0.2)]
    (table,) = curve_tables([*points, _point(0.5, experiment="none")]).values()
    assert list(table["series"]) == ["uniform"] * 3 + ["unigram"] * 3
    assert list(table["value"]) == [0.1, 0.2, 0.3] * 2
    assert list(table["ours"]) == pytest.approx([0.1, 0.2, 0.3] * 2)
    assert list(table["low"]) == pytest.approx([0.05, 0.15, 0.25] * 2)


def test_two_numbers_swept_in_turn_make_two_curves() -> None:
    swept = [(2, 2), (4, 2), (8, 2), (8, 0), (8, 1)]
    tables = curve_tables([_point(0.5, clusters=clusters, ghosts=ghosts) for clusters, ghosts in swept])
    assert {key: list(table["value"]) for key, table in tables.items()} == {"clusters": [2, 4, 8], "ghosts": [0, 1, 2]}
    assert set(tables["clusters"]["series"]) == {"ghosts=2"}
    assert set(tables["ghosts"]["series"]) == {"clusters=8"}


def test_a_grid_makes_a_series_of_each_other_value() -> None:
    (table,) = curve_tables([_point(0.5, margin=m, scale=s) for s in (10, 30) for m in (0.1, 0.2, 0.4)]).values()
    assert list(table["series"]) == ["scale=10"] * 3 + ["scale=30"] * 3


def test_other_configurations_make_no_curve() -> None:
    three = (2, 3, 4)
    for points in (
        [_point(0.5, clusters=k) for k in (2, 4)],  # two points
        [_point(None, 60.0, clusters=k) for k in three],  # nothing was run
        [_point(0.5, clusters=k, ghosts=k) for k in three],  # two numbers change together
        [_point(0.5, experiment=f"{k}", clusters=k) for k in three],  # of other experiments
        [_point(0.5, corpus=f"{k}", clusters=k) for k in three],  # on other corpora
        [_point(0.5, pooling=f"{k}") for k in three],  # not a number
        [_point(0.5, frozen=value) for value in (True, False, None)],
    ):
        assert curve_tables(points) == {}


def test_source_checkpoints_do_not_split_a_curve() -> None:
    points = [_point(0.5, clusters=k, pretrained_checkpoint=f"fold-0{k}/best.ckpt") for k in (2, 3, 4)]
    assert list(curve_tables(points)) == ["clusters"]


def test_ambiguous_keys_are_named_in_full() -> None:
    points = [
        Point(Configured(("p", "e", "c"), {"loss.alpha": a, "pooling.alpha": b}), _estimate(0.5), None)
        for a, b in ((1, 1), (2, 1), (3, 1), (1, 2), (1, 3))
    ]
    assert list(curve_tables(points)) == ["loss.alpha", "pooling.alpha"]


def test_what_was_not_run_is_a_gap() -> None:
    points = [_point(0.5, clusters=2), _point(None, 62.6, clusters=3), _point(0.6, 61.0, clusters=4)]
    table = curve_tables(points)["clusters"]
    assert math.isnan(table["ours"][1])
    assert list(table["paper"].fillna(0)) == pytest.approx([0, 0.626, 0.61])  # fractions, as in every file
    assert png(curve_figure(table, "clusters", "UA", "title")).startswith(b"\x89PNG")


def test_the_picture_has_intervals_and_the_papers_points() -> None:
    table = curve_tables([_point(k / 10, 50.0 if k == 3 else None, k=k) for k in (2, 3, 4)])["k"]
    (axes,) = curve_figure(table, "k", "UA", "title").axes
    line, stars = axes.lines
    assert list(line.get_ydata()) == pytest.approx([20, 30, 40])
    assert list(stars.get_ydata()) == [50]
    assert len(axes.collections[0].get_segments()) == 3  # type: ignore[attr-defined]
