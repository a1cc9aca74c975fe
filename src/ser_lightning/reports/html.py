"""One HTML page that holds all there is to know about an experiment's results."""
# Shapes: C classes.

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from ser_lightning.atomic_file import write_atomically
from ser_lightning.metrics import recalls, scores
from ser_lightning.reports import markup
from ser_lightning.reports.figures import confusion_figure, png, recall_sentence, score_figure, training_figure
from ser_lightning.reports.predictions import Predictions, confusion
from ser_lightning.reports.runs import CrossValidation, find_cross_validations
from ser_lightning.reports.stylesheet import STYLESHEET
from ser_lightning.reports.summary import (
    METRICS,
    SPEAKERS_SHARED,
    SeedSummary,
    Summary,
    caveats,
    corpus_title,
    folds_in_words,
    percentages,
    pooled_confusion,
    soft_scores_lines,
    statistics_rows,
    summarize,
)


def write_report(run_folders: Sequence[Path], out: Path) -> Path:
    """Write one page about the runs in or below ``run_folders``; it needs no network and no other file.

    Args:
        run_folders: Folds, seeds or folders above, all of one experiment.
        out: The HTML file.

    Returns:
        ``out``.

    Raises:
        ConfigurationError: If nothing is finished, a file is faulty, or the runs must not be averaged.
    """
    runs = find_cross_validations(run_folders)
    summary = summarize(runs)
    counts = torch.stack([pooled_confusion(run) for run in runs]).sum(dim=0)
    content = [
        markup.bullets(caveats(summary), "caveats"),
        _headline(summary),
        _what_was_run(summary),
        _folds(summary),
        _classes(summary, counts),
        _speakers(runs, summary),
        _training(runs),
        _left_out(summary),
    ]
    title = f"{summary.experiment} on {corpus_title(summary)}"
    subtitle = ", ".join(filter(None, (summary.system, summary.paper)))
    write_atomically(out, markup.page(title, subtitle, STYLESHEET, content).encode())
    return out


def _headline(summary: Summary) -> str:
    over_seeds = summary.over_seeds_of_the_mean_over_folds
    statistics = over_seeds or summary.seeds[0].over_folds
    folds = folds_in_words(summary.seeds[0], summary.num_folds)
    over = f"{len(summary.seeds)} seeds, each the mean over its folds" if over_seeds else folds
    deviations = percentages(statistics.standard_deviation_ddof_0)
    numbers = {}
    for name, mean, deviation in zip(METRICS, percentages(statistics.mean), deviations, strict=True):
        spread = f"standard deviation {deviation} (ddof 0)" if statistics.standard_deviation_ddof_0 else "no spread"
        numbers[name.replace("_", " ")] = (f"{mean}%", f"mean over {over}; {spread}")
    return markup.headline(numbers)


def _what_was_run(summary: Summary) -> str:
    parameters = sorted({fold.parameters for seed in summary.seeds for fold in seed.folds})
    facts = {
        "experiment": summary.experiment,
        "paper": summary.paper,
        "row": summary.row,
        "system": summary.system,
        "trainable parameters": ", ".join(f"{number:,}" for number in parameters),
        "corpus": corpus_title(summary),
        "classes": ", ".join(summary.class_names),
        "protocol": summary.protocol,
        "speakers": "no speaker occurs in two sets of a fold" if summary.speakers_disjoint else SPEAKERS_SHARED,
        "protocol hash": summary.protocol_hash,
        "seeds": ", ".join(str(seed.seed) for seed in summary.seeds),
        "finished": "; ".join(
            f"{folds_in_words(seed, summary.num_folds)} (seed {seed.seed})" for seed in summary.seeds
        ),
        "code": ", ".join(summary.code_versions),
        "hardware": ", ".join(summary.hardware),
        "time of all folds": _duration(summary.seconds),
        "audio": f"skipped as unusable: {len(summary.skipped_audio)}; left out as faulty or without audio: "
        f"{len(summary.faulty_left_out)}",
    }
    known = {word: said for word, said in facts.items() if said}  # an experiment of one's own rebuilds no paper
    return markup.section("What was run", markup.definitions(known))


def _folds(summary: Summary) -> str:
    pieces = [_fold_table(seed, summary.num_folds) for seed in summary.seeds]
    headings = {"": False} | dict.fromkeys(METRICS.values(), True)
    for what, statistics in (
        ("Over seeds: mean over folds", summary.over_seeds_of_the_mean_over_folds),
        ("Over seeds: pooled", summary.over_seeds_of_pooled),
    ):
        if statistics:
            named = statistics_rows(statistics, f"{len(summary.seeds)} seeds")
            pieces.append(markup.table(what, headings, [[name, *percentages(values)] for name, values in named]))
    drawn = {
        f"fold {fold.fold}" + (f", seed {seed.seed}" if len(summary.seeds) > 1 else ""): fold.scores
        for seed in summary.seeds
        for fold in seed.folds
    }
    figure = score_figure(drawn, f"Folds: {corpus_title(summary)}", chance=1 / len(summary.class_names))
    words = "; ".join(f"{name}: UA {100 * values['UA']:.1f}%" for name, values in drawn.items())
    caption = "The best UA on top. Chance is guessing every class equally often."
    pieces += [markup.paragraph(f"{line[0].upper()}{line[1:]}.") for line in soft_scores_lines(summary)]
    return markup.section("Folds", *pieces, markup.picture(png(figure), words, caption))


def _fold_table(seed: SeedSummary, num_folds: int) -> str:
    headings = {
        "fold": False,
        **dict.fromkeys(METRICS.values(), True),
        "utterances": True,
        "speakers": True,
        "best epoch": True,
        "epochs": True,
        "time": True,
        "split hash": False,
    }
    rows = [
        [
            f"fold {fold.fold}",
            *percentages(fold.scores),
            str(fold.utterances),
            str(len(fold.speakers)),
            str(fold.best_epoch),
            str(fold.epochs),
            _duration(fold.seconds),
            fold.split_hash,
        ]
        for fold in seed.folds
    ]
    empty = [""] * 5  # what the folds alone have
    named = statistics_rows(seed.over_folds, folds_in_words(seed, num_folds))
    footer = [[name, *percentages(values), "", *empty] for name, values in named]
    footer.append(["pooled over utterances", *percentages(seed.pooled), str(seed.utterances), *empty])
    return markup.table(
        f"Seed {seed.seed}, test set of each fold; the best epoch counts from 0", headings, rows, footer
    )


def _classes(summary: Summary, counts: Tensor) -> str:
    seeds = len(summary.seeds)
    folds = "all folds" if not any(seed.folds_missing for seed in summary.seeds) else "the finished folds"
    pooled = f"pooled over {folds}" + (f" and added up over {seeds} seeds" if seeds > 1 else "")
    figure = confusion_figure(counts, summary.class_names, f"{summary.system}\n{corpus_title(summary)}")
    rows = []
    for index, (name, recall) in enumerate(zip(summary.class_names, recalls(counts).tolist(), strict=True)):
        row = counts[index].clone()
        total, recognised = int(row.sum()), int(row[index])
        row[index] = 0
        wrong = int(row.argmax())
        mistaken = f"{summary.class_names[wrong]} ({int(row[wrong])})" if row[wrong] else "-"
        rows.append([name, str(total), str(recognised), f"{100 * recall:.2f}" if total else "-", mistaken])
    headings = {"class": False, "utterances": True, "recognised": True, "recall %": True, "most often taken for": False}
    total, recognised = int(counts.sum()), int(counts.diagonal().sum())
    values = {name: value.item() for name, value in scores(counts).items()}
    footer = [
        ["mean recall (UA)", "", "", f"{100 * values['UA']:.2f}", ""],
        ["all utterances (WA)", str(total), str(recognised), f"{100 * values['WA']:.2f}", ""],
    ]
    return markup.section(
        "Classes",
        markup.picture(
            png(figure),
            f"Confusion matrix. Recall: {recall_sentence(counts, summary.class_names)}",
            f"Confusion matrix, {pooled}. Each row adds up to 100%; the counts are utterances.",
        ),
        markup.table(f"Recall of each class, {pooled}", headings, rows, footer),
    )


def _speakers(runs: Sequence[CrossValidation], summary: Summary) -> str:
    """Draw each speaker's scores: over all folds that test the speaker, then the mean over seeds."""
    tables = []
    for run in runs:
        whole = pd.concat([fold.predictions.table for fold in run.folds])
        for speaker, part in whole.groupby("speaker"):
            counts = confusion(Predictions(summary.class_names, part), summary.class_names)
            tables.append({"speaker": speaker} | {name: value.item() for name, value in scores(counts).items()})
    means = pd.DataFrame(tables).groupby("speaker")[["UA", "WA"]].mean()
    drawn = {str(speaker): {"UA": float(row["UA"]), "WA": float(row["WA"])} for speaker, row in means.iterrows()}
    figure = score_figure(drawn, f"Speakers: {corpus_title(summary)}", chance=1 / len(summary.class_names))
    words = "; ".join(f"speaker {name}: UA {100 * values['UA']:.1f}%" for name, values in drawn.items())
    caption = f"{len(drawn)} speakers, the best UA on top; UA over the classes that the speaker's test utterances have."
    if len(runs) > 1:
        caption += f" Means over {len(runs)} seeds."
    return markup.section("Speakers", markup.picture(png(figure), words, caption))


def _training(runs: Sequence[CrossValidation]) -> str:
    found = {(run.facts.seed, fold.facts.fold): fold.history() for run in runs for fold in run.folds}
    histories = {f"seed {seed}, fold {fold}": table for (seed, fold), table in found.items() if table is not None}
    without = [f"seed {seed}, fold {fold}" for (seed, fold), table in found.items() if table is None]
    pieces = [markup.paragraph(f"No metrics.csv in: {'; '.join(without)}.")] if without else []
    if histories:
        caption = "A thin line for each fold; their mean is thick and ends where the first fold stops training."
        words = f"Loss and UA by epoch for {len(histories)} folds."
        pieces.append(markup.picture(png(training_figure(histories, "Training")), words, caption))
    return markup.section("Training", *pieces)


def _left_out(summary: Summary) -> str:
    skipped = [f"{path}: {reason}" for path, reason in summary.skipped_audio.items()]
    pieces = [
        markup.folded(f"{what}: {len(lines)}", lines)
        for what, lines in (
            ("Audio files skipped as unusable", skipped),
            ("Utterances left out: faulty in the release, or without audio", summary.faulty_left_out),
        )
        if lines
    ]
    return markup.section("Left out", *pieces) if pieces else ""


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
