import math
import re
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from ser_lightning.reports.figures import confusion_figure, png, recall_sentence, save, score_figure, training_figure

CONFUSION = torch.tensor([[3, 1, 0], [0, 4, 4], [0, 0, 0]])
NAMES = ("angry", "sad", "calm")


def _texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text()]


def test_a_confusion_picture_shows_shares_counts_and_scores() -> None:
    texts = _texts(confusion_figure(CONFUSION, NAMES, "VGG on ravdess, SYNTHETIC speech"))
    assert "VGG on ravdess, SYNTHETIC speech\nUA 62.5%   WA 58.3%" in texts
    assert [text for text in texts if text.endswith("%") and "UA" not in text] == [
        "75%",
        "25%",
        "0%",
        "0%",
        "50%",
        "50%",
    ]
    assert {"angry\nn = 4", "sad\nn = 8", "calm\nn = 0", "no utterance"} <= set(texts)


def test_text_in_a_confusion_picture_has_contrast() -> None:
    for right in (0, 25, 50, 55, 60, 64, 68, 72, 100):
        figure = confusion_figure(torch.tensor([[right, 100 - right], [0, 1]]), ("a", "b"), "")
        cell = next(text for text in figure.axes[0].texts if text.get_position() == (0, -0.1))
        background = mpl.colormaps["Blues"](right / 100)
        assert _contrast(cell.get_color(), background) >= 3.4, f"{right}%"


def _contrast(ink: object, paper: tuple[float, ...]) -> float:
    def luminance(colour: tuple[float, ...]) -> float:
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in colour[:3]]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    both = sorted((luminance(mpl.colors.to_rgb(ink)), luminance(paper)))  # type: ignore[arg-type]
    return (both[1] + 0.05) / (both[0] + 0.05)


@pytest.mark.parametrize("num_classes", [2, 4, 8])
def test_no_text_in_a_confusion_figure_overlaps(num_classes: int) -> None:
    names = ["surprised", "neutral", "calm", "disgust", "fearful", "happy", "angry", "sad"][:num_classes]
    figure = confusion_figure(torch.full((num_classes, num_classes), 1234), names, "TransferResNet\nravdess")
    FigureCanvasAgg(figure).draw()
    boxes = [(text.get_text(), text.get_window_extent()) for text in figure.axes[0].texts]
    boxes += [(figure.get_suptitle(), figure.texts[0].get_window_extent())]
    for index, (name, box) in enumerate(boxes):
        assert all(not box.overlaps(other) for _, other in boxes[index + 1 :]), name


def test_the_mean_training_curve_ends_with_the_first_fold() -> None:
    histories = {
        "fold 0": pd.DataFrame({"train/loss": [4.0, 2.0, 1.0], "validation/UA": [0.2, 0.4, 0.5]}),
        "fold 1": pd.DataFrame({"train/loss": [2.0, 1.0], "validation/UA": [math.nan, 0.6]}),
    }
    loss, ua = training_figure(histories, "training").axes
    mean = next(line for line in loss.lines if line.get_label() == "train, mean of 2")
    assert list(mean.get_xdata()) == [0, 1]
    assert list(mean.get_ydata()) == [3.0, 1.5]
    mean = next(line for line in ua.lines if line.get_label() == "validation, mean of 2")
    assert list(mean.get_ydata()) == pytest.approx([50.0])


def test_missing_curves_are_named() -> None:
    figure = training_figure({"fold 0": pd.DataFrame({"train/loss": [4.0, 2.0]})}, "training")
    assert "not recorded" not in [text.get_text() for text in figure.axes[0].texts]
    assert "not recorded" in [text.get_text() for text in figure.axes[1].texts]


def test_dots_are_sorted_with_the_best_on_top() -> None:
    scores = {"01": {"UA": 0.5, "WA": 0.4}, "02": {"UA": 0.9, "WA": 0.8}, "03": {"UA": 0.7, "WA": 1.0}}
    figure = score_figure(scores, "Speakers", chance=1 / 8)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["01", "03", "02"]
    assert {"mean UA 70.0%", "chance 12.5%"} <= set(_texts(figure))


def test_dollar_signs_are_not_mathematics() -> None:
    names = ("$a_b$", r"\frac", "c")
    assert png(confusion_figure(CONFUSION, names, "$x^2$ costs $5")).startswith(b"\x89PNG")
    assert png(score_figure({r"$\bad$": {"UA": 0.5, "WA": 0.5}}, "$", 0.5)).startswith(b"\x89PNG")


def test_a_figure_is_written_atomically_and_reproducibly(tmp_path: Path) -> None:
    path = save(confusion_figure(CONFUSION, NAMES, "title"), tmp_path / "new" / "confusion.png")
    assert path.read_bytes() == png(confusion_figure(CONFUSION, NAMES, "title"))
    assert [entry.name for entry in path.parent.iterdir()] == ["confusion.png"]


def test_recalls_in_words_leave_out_absent_classes() -> None:
    assert recall_sentence(CONFUSION, NAMES) == "angry 75%, sad 50%"


def test_names_in_any_script_are_shown_without_boxes(caplog: pytest.LogCaptureFixture) -> None:
    # Cyrillic is in the default font; no font has characters of a private area.
    names = ("злость", "\U000f0000\U000f0001", "a \U000f0002", "\U000f0000\U000f0001 b")
    figure = confusion_figure(torch.eye(4, dtype=torch.long), names, "")
    png(figure)  # a missing glyph is a warning, and so an error
    png(figure)
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels[0] == "злость"
    first, second, third = (re.sub("[ab ]", "", label) for label in labels[1:])
    assert {first, second} == {"#1", "#2"}
    assert third == first
    (line,) = [record.getMessage() for record in caplog.records]
    assert f"\U000f0000\U000f0001 is {first}" in line
    assert f"\U000f0002 is {second}" in line
