"""All charts of a report on one page that needs no network: plotly is inside the file."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
import plotly.graph_objects as go
import plotly.io as pio

from nucleate.evaluation.chart import Chart
from nucleate.evaluation.plots import INK, colour_of

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font-family: system-ui, sans-serif; color: {ink}; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.3rem; }}
</style>
</head>
<body>
<h1>{title}</h1>
{charts}
</body>
</html>
"""


def page(charts: Sequence[Chart], *, title: str) -> str:
    """HTML of all charts, one below the other, with plotly's script once inside it."""
    parts = [
        pio.to_html(
            figure(chart),
            include_plotlyjs=number == 0,
            full_html=False,
            div_id=chart.name,
            config={"displaylogo": False, "responsive": True},
        )
        for number, chart in enumerate(charts)
    ]
    return _PAGE.format(title=escape(title), ink=INK, charts="\n".join(parts))


def figure(chart: Chart) -> go.Figure:
    """The chart as a plotly figure."""
    drawn = go.Figure()
    for number, series in enumerate(chart.series):
        colour, y = colour_of(series, number), np.array(series.y)
        if chart.kind == "intervals":
            drawn.add_scatter(
                x=y,
                y=[chart.labels[int(place)] for place in series.x],
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": (np.array(series.high) - y).clip(0),
                    "arrayminus": (y - np.array(series.low)).clip(0),
                },
                mode="markers",
                name=series.name,
                marker={"color": colour, "size": 9, "symbol": "circle" if number == 0 else "diamond"},
            )
        elif chart.kind == "histogram":
            edges = np.array(series.x)
            drawn.add_bar(
                x=(edges[:-1] + edges[1:]) / 2,
                y=y,
                width=np.diff(edges),
                name=series.name,
                marker_color=colour,
                opacity=0.65,
            )
        elif chart.kind == "mirrored":
            sign = 1 if number == 0 else -1
            drawn.add_bar(
                x=series.x,
                y=sign * y,
                customdata=y,
                hovertemplate="%{x}: %{customdata:.2f} %",
                name=series.name,
                marker_color=colour,
            )
        else:
            drawn.add_scatter(x=series.x, y=y, mode="lines", name=series.name, line={"color": colour})
    drawn.update_layout(
        title={"text": f"<b>{escape(chart.title)}</b><br><sub>{escape(chart.subtitle)}</sub>"},
        xaxis_title=chart.x_label,
        yaxis_title=chart.y_label,
        template="plotly_white",
        barmode="overlay" if chart.kind == "histogram" else "relative",
        height=max(320, 140 + 28 * len(chart.labels)) if chart.kind == "intervals" else 440,
        font={"color": INK},
    )
    if chart.kind == "intervals":
        drawn.update_yaxes(categoryorder="array", categoryarray=list(chart.labels))
    if chart.logarithmic:
        drawn.update_xaxes(type="log")
    if chart.kind == "lines":
        drawn.update_yaxes(rangemode="tozero")
        drawn.update_layout(showlegend=True)  # a single curve needs its name too
    return drawn
