"""How reports of ``nucleate evaluate`` look on a terminal: numbers in columns, the protocol right below them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import groupby
from string import ascii_lowercase
from typing import TYPE_CHECKING

from rich.padding import Padding
from rich.text import Text

from nucleate.evaluation.statistics import FEW, small_sample_note

if TYPE_CHECKING:
    from rich.console import Console

    from nucleate.evaluation.compare import ComparedMetric, Comparison
    from nucleate.evaluation.metric import Metric
    from nucleate.evaluation.report import Report

_TITLES = ("value", "95 %", "n", "reference")
_COMPARED_TITLES = ("A", "B", "A − B", "95 %", "p", "better")
_LEAST_P = 0.001
_INDENT = 4
_OFTEN, _LONG = 3, 40


def print_report(output: Console, report: Report) -> None:
    """Value, interval, sample size and the reference's value of each metric; below, in words, how they were obtained.

    Metrics next to each other with the same protocol share one paragraph; a clause that several protocols of a family
    share is a letter, explained below the family. A yellow ``n`` is below 100.
    """
    for family, keys in report.families.items():
        metrics = [report.metrics[key] for key in keys]
        if all(metric.value is None for metric in metrics):
            if metrics:
                why = next((metric.note for metric in metrics if metric.note), "")
                output.print(
                    Text(family, style="bold").append(f"  not measured: {why}", style="not bold yellow")
                )
                output.print()
            continue
        letters = _shared_clauses({metric.protocol for metric in metrics})
        lines = _aligned([_heading(family, _TITLES), *map(_cells, metrics)])
        output.print(next(lines), soft_wrap=True)
        for (protocol, note), group in groupby(zip(metrics, lines), key=lambda pair: _remark(pair[0])):
            for _, line in group:
                output.print(line, soft_wrap=True)
            _print_remark(output, _with_letters(protocol, letters), note)
        for clause, letter in letters.items():
            _print_remark(output, f"[{letter}] {clause}", "", indent=0)
        output.print()


def print_comparison(output: Console, comparison: Comparison) -> None:
    """Both values, their difference with its interval, and the p-value adjusted for all metrics."""
    for letter, report in (("A", comparison.first), ("B", comparison.second)):
        crystals = report.about["crystals"]
        output.print(Text(f"{letter} = {crystals['source']}, {crystals['num']:,} crystals"), soft_wrap=True)
    tested = sum(compared.p_adjusted is not None for compared in comparison.metrics.values())
    output.print(f"p adjusted for the number of tests, {tested:,} (Holm); A − B in points for shares")
    output.print()
    compared = list(comparison.metrics.values())
    lines = _aligned([_heading("", _COMPARED_TITLES), *map(_compared_cells, compared)])
    output.print(next(lines), soft_wrap=True)
    for note, group in groupby(zip(compared, lines), key=lambda pair: _how(pair[0])):
        for _, line in group:
            output.print(line, soft_wrap=True)
        _print_remark(output, note, "")
    output.print()


def _heading(name: str, titles: Sequence[str]) -> list[Text]:
    return [Text(title, style="bold") for title in (name, *titles)]


def _cells(metric: Metric) -> list[Text]:
    stated = metric.value is not None and metric.unit not in ("", "share")
    unit = f" {metric.unit}" if stated else ""
    return [
        Text(metric.name),
        Text(_number(metric, metric.value) + unit),
        Text(_interval(metric)),
        Text(f"{metric.n:,}", style="yellow" if metric.n < FEW else ""),
        Text(_number(metric, metric.reference)),
    ]


def _compared_cells(compared: ComparedMetric) -> list[Text]:
    d, scale = compared.difference, 100 if compared.first.unit == "share" else 1
    ends = None if d is None else d.ci95
    p = compared.p_adjusted
    return [
        Text(compared.name),
        Text(_number(compared.first, compared.first.value)),
        Text(_number(compared.second, compared.second.value)),
        Text("–" if d is None else f"{scale * d.value:+.3g}"),
        Text("–" if ends is None else f"{scale * ends[0]:+.3g} to {scale * ends[1]:+.3g}"),
        Text("–" if p is None else f"<{_LEAST_P:g}" if p < _LEAST_P else f"{p:.3f}"),
        Text({"first": "A", "second": "B"}.get(compared.better, ""), style="green"),
    ]


def _how(compared: ComparedMetric) -> str:
    paired = compared.difference is not None and compared.difference.paired
    return compared.note or ("compared pair by pair" if paired else "")


def _number(metric: Metric, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.2f} %" if metric.unit == "share" else f"{value:.4g}"


def _interval(metric: Metric) -> str:
    if metric.ci95 is None:
        return "–"
    low, high = metric.ci95
    if metric.unit == "share":
        return f"{100 * low:.1f} to {100 * high:.1f}"
    return f"{low:.3g} to {high:.3g}"


def _remark(metric: Metric) -> tuple[str, str]:
    """Protocol and note; that a sample is small is said by the colour of ``n`` and once at the end."""
    few = small_sample_note(metric.n)
    return metric.protocol, "; ".join(part for part in metric.note.split("; ") if part and part != few)


def _shared_clauses(protocols: Collection[str]) -> dict[str, str]:
    """A letter for each long clause that at least three of the protocols have."""
    counts = Counter(clause for protocol in sorted(protocols) for clause in protocol.split("; "))
    shared = [clause for clause, count in counts.items() if count >= _OFTEN and len(clause) >= _LONG]
    return dict(zip(shared, ascii_lowercase))


def _with_letters(protocol: str, letters: Mapping[str, str]) -> str:
    """The protocol with letters in place of the clauses that have one."""
    clauses = protocol.split("; ")
    named = ", ".join(letters[clause] for clause in clauses if clause in letters)
    own = "; ".join(clause for clause in clauses if clause not in letters)
    return f"{own} [{named}]".strip() if named else own


def _print_remark(output: Console, protocol: str, note: str, *, indent: int = _INDENT) -> None:
    text = Text(protocol, style="dim")
    if note:
        text.append(f"{' ' if protocol else ''}({note})", style="yellow")
    if text:
        output.print(Padding(text, (0, 0, 0, indent)))


def _aligned(rows: Sequence[Sequence[Text]]) -> Iterator[Text]:
    """The rows as lines: the first column to the left, the others to the right, each as wide as it must be."""
    widths = [max(cell.cell_len for cell in column) for column in zip(*rows)]
    for name, *cells in rows:
        line = name.copy()
        line.append(" " * (widths[0] - name.cell_len))
        for cell, width in zip(cells, widths[1:]):
            line.append(" " * (2 + width - cell.cell_len)).append_text(cell)
        yield line
