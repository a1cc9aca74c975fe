"""How good: ours beside the paper's, intervals over speakers, and which systems differ."""

from collections.abc import Sequence

from ser_lightning.reports.curves import Point, curve_figure, curve_tables
from ser_lightning.reports.document import Block, Folded, Paragraph, Picture, Section, Table
from ser_lightning.reports.figures import png
from ser_lightning.reports.paired_tests import MOST_IN_ALL_PAIRS, SIGNIFICANT, Contestant, PairedTest, paired_tests
from ser_lightning.reports.systems import AbsentRow, Published, ReportedSystem
from ser_lightning.reports.terminal import mean_and_spread, mean_and_spread_in_words
from ser_lightning.reports.uncertainty import SCORES, Estimate, SpeakerCounts, estimate, too_narrow
from ser_lightning.runs.summary import Summary, corpus_title


def beside_the_paper(systems: Sequence[ReportedSystem], absent: Sequence[AbsentRow] = ()) -> Section:
    """Return ours beside the paper's with differences, and pooled scores with intervals.

    Args:
        systems: What was run.
        absent: Rows of the table that were not run, or are only quoted by the paper.
    """
    every = [published for system in systems for published in system.published] + [row.published for row in absent]
    metrics = [name for name in SCORES if any(name in published.scores for published in every)] or list(SCORES)
    headings = {"": False, "paper": False} if every else {"": False}
    for metric in metrics:
        headings |= {f"paper {metric}": True} if every else {}
        headings |= {f"ours {metric}": True, **({f"difference {metric}": True} if every else {})}
    headings |= {"folds": True, "seeds": True}
    rows = []
    notes: list[str] = []
    for system in systems:
        for published in system.published or [Published("", "")]:
            first = [system.name, published.source] if every else [system.name]
            scores = [cell for metric in metrics for cell in _compared(system, published, metric, bool(every))]
            rows.append([*first, *scores, _folds(system.summary), ", ".join(str(s.seed) for s in system.summary.seeds)])
            notes += _notes(system, published)
    for row in absent:
        scores = [cell for metric in metrics for cell in (_papers(row.published, metric), "", "")]
        rows.append([row.name, row.published.source, *scores, row.state, ""])
        notes += [f"{row.name}: {row.published.note}"] if row.published.note else []
    what = mean_and_spread_in_words([system.summary for system in systems])
    caption = f"{what[0].upper()}{what[1:]}, in percent"
    blocks: list[Block] = [Table(caption, headings, rows)]
    if not every:
        blocks.append(Paragraph("No published number is known for this."))
    elif notes:
        blocks.append(Folded("Notes", list(dict.fromkeys(notes))))
    return Section("Ours beside the paper's" if every else "Scores", [*blocks, _pooled(systems)])


def which_differ(systems: Sequence[ReportedSystem]) -> list[Section]:
    """Return paired tests between systems, if there are several."""
    if len(systems) < 2:
        return []
    tests, refused = paired_tests([Contestant(system.name, system.runs) for system in systems])
    pairs = "each with each" if len(systems) <= MOST_IN_ALL_PAIRS else f"each with the first, {systems[0].name}"
    blocks: list[Block] = []
    if tests:
        explanation = (
            "Speakers, not utterances, are what the test counts: the difference of each speaker's score keeps or flips "
            f"its sign (permutation test, two-sided). Systems are compared {pairs}; p is then corrected for all "
            f"{len(tests)} tests on this page (Holm). Intervals are of each comparison by itself, not corrected. "
            f"{_trainings(systems)}"
        )
        warnings = [*_cannot_be_shown(tests), too_narrow(test.speakers for test in tests if test.low is not None)]
        headings = {"": False, "metric": False, "difference": True, "95% interval": True, "speakers": True}
        headings |= {"p": True, "p corrected": True, "verdict": False}
        caption = "Difference of the second from the first in percentage points, mean over speakers"
        blocks += [Paragraph(text) for text in (explanation, *warnings) if text]
        blocks.append(Table(caption, headings, [_tested(test) for test in tests]))
    if refused:
        blocks.append(Paragraph("Not paired, so that nothing is said about which is better:"))
        lines = [f"{refusal.first} and {refusal.second}: {refusal.reason}" for refusal in refused]
        blocks.append(Folded(f"{len(refused)} {'pair' if len(refused) == 1 else 'pairs'}", lines))
    return [Section("Which systems differ", blocks)]


def hyper_parameters(systems: Sequence[ReportedSystem], absent: Sequence[AbsentRow] = ()) -> list[Section]:
    """Return scores over each number in which configurations differ alone, if there is any."""
    every = [published for system in systems for published in system.published] + [row.published for row in absent]
    metric = "WA" if {name for published in every for name in published.scores} == {"WA"} else "UA"
    comparable = any(system.summary.is_on(p.corpus) for system in systems for p in system.published)
    points = [
        Point(row.configured, None, row.published.scores.get(metric) if comparable else None)
        for row in absent
        if row.configured
    ]
    for system in systems:
        ours = estimate(SpeakerCounts.of(system.runs).counts, SCORES[metric])
        papers = (p.scores[metric] for p in system.published if metric in p.scores and system.summary.is_on(p.corpus))
        if system.configured.settings:  # an old run may have no config.yaml
            points.append(Point(system.configured, ours, next(papers, None)))
    title = ", ".join(sorted({corpus_title(system.summary) for system in systems}))
    pictures = []
    for parameter, table in curve_tables(points).items():
        run = table[table["ours"].notna()]
        speakers = _number_of_speakers(table["speakers"].tolist())
        pictures.append(
            Picture(
                f"curve_{parameter}",
                png(curve_figure(table, parameter, metric, f"{parameter}: {title}")),
                "; ".join(
                    f"{row.series} {parameter}={row.value:g}: {row.ours:.1%}".strip() for row in run.itertuples()
                ),
                f"Pooled {metric} over {parameter}; bars are 95% intervals over {speakers} speakers. "
                f"Stars, if there are any: the paper's. {too_narrow(run.loc[run['low'].notna(), 'speakers'])}".strip(),
                table,
            )
        )
    return [Section("Hyper-parameters", pictures)] if pictures else []


def _pooled(systems: Sequence[ReportedSystem]) -> Table:
    headings = {"": False, "speakers": True}
    every: list[Estimate] = []
    for metric in SCORES:
        headings |= {f"pooled {metric} %": True, f"{metric}: 95% interval": True}
    rows = []
    for system in systems:
        counts = SpeakerCounts.of(system.runs)
        found = [estimate(counts.counts, score) for score in SCORES.values()]
        rows.append([system.name, str(len(counts.speakers)), *(cell for one in found for cell in _cells(one))])
        every += found
    caption = "All utterances in one confusion matrix; intervals by bootstrap over speakers, not over utterances"
    if warning := too_narrow(one.speakers for one in every if one.low is not None):
        caption += f". {warning.removesuffix('.')}"
    return Table(caption, headings, rows)


def _cells(found: Estimate) -> list[str]:
    return [f"{100 * found.value:.2f}", found.interval() if found.low is not None else f"none: {found.reason}"]


def _compared(system: ReportedSystem, published: Published, metric: str, beside: bool) -> list[str]:
    mean, ours = 100 * system.summary.statistics.mean[metric], mean_and_spread(system.summary, metric)
    if not beside:
        return [ours]
    if metric not in published.scores:
        return ["", ours, ""]
    comparable = system.summary.is_on(published.corpus)
    return [_papers(published, metric), ours, f"{mean - published.scores[metric]:+.1f}" if comparable else ""]


def _papers(published: Published, metric: str) -> str:
    return f"{published.scores[metric]:.1f}" if metric in published.scores else ""


def _notes(system: ReportedSystem, published: Published) -> list[str]:
    notes = [f"{system.name}: {published.note}"] if published.note else []
    if published.scores and not system.summary.is_on(published.corpus):
        ours = corpus_title(system.summary)
        notes.append(f"{system.name}: the paper's numbers are on {published.corpus}; ours, on {ours}, do not compare")
    if published.differences:
        notes.append(f"{system.name}: not as in the file: {', '.join(published.differences)}")
    return notes


def _folds(summary: Summary) -> str:
    return f"{', '.join(str(len(seed.folds)) for seed in summary.seeds)} of {summary.num_folds}"


def _tested(test: PairedTest) -> list[str]:
    interval = "-" if test.low is None or test.high is None else f"[{100 * test.low:+.1f}, {100 * test.high:+.1f}]"
    return [
        f"{test.second} less {test.first}",
        test.metric,
        f"{100 * test.difference:+.1f}",
        interval,
        str(test.speakers),
        _p_value(test.p_value),
        _p_value(test.adjusted),
        test.verdict,
    ]


def _trainings(systems: Sequence[ReportedSystem]) -> str:
    """Return what the paired tests know of training again."""
    seeds = {system.name: len(system.runs) for system in systems}
    if max(seeds.values()) == 1:
        return (
            "One training of each fold stands behind each score: whether a system would be better if trained again, "
            "this test does not know."
        )
    alike = len(set(seeds.values())) == 1
    number = f"{max(seeds.values())}" if alike else ", ".join(f"{name}: {count}" for name, count in seeds.items())
    return (
        f"A speaker's score is the mean over the seeds of a system ({number}): how far one training is from the next, "
        "this test does not know."
    )


def _cannot_be_shown(tests: Sequence[PairedTest]) -> list[str]:
    """Return a sentence for each number of speakers that is too small for so many tests."""
    least: dict[int, float] = {}
    for test in tests:
        if test.least_adjusted >= SIGNIFICANT:
            least[test.speakers] = min(test.least_adjusted, least.get(test.speakers, 1.0))
    return [
        f"With {speakers} speakers and {len(tests)} tests no corrected p below {bound:.3g} is possible, whatever the "
        "speakers scored: no difference can be shown there. More speakers, or fewer systems in one report, would help."
        for speakers, bound in sorted(least.items())
    ]


def _p_value(p_value: float) -> str:
    return f"{p_value:.3f}" if p_value >= 0.001 else f"{p_value:.1g}"


def _number_of_speakers(numbers: Sequence[int]) -> str:
    present = sorted({int(number) for number in numbers if number})
    return str(present[0]) if len(present) == 1 else f"{present[0]} to {present[-1]}"
