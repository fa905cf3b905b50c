"""Colours, shapes and dashes of all charts, in a light and a dark theme (Okabe-Ito)."""

from typing import Any

OKABE_ITO = {
    "light": ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6b6b6b", "#9a8700"],
    "dark": ["#56B4E9", "#F07C2B", "#1fc598", "#e29bc2", "#E69F00", "#8fb8ff", "#b5b5b5", "#F0E442"],
}
"""Okabe and Ito 2008, ordered for contrast; black, yellow and blue are shifted where the background would hide them."""

SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left"]
DASHES = [[1, 0], [6, 3], [2, 2], [8, 2, 2, 2], [4, 4], [10, 4], [3, 1, 1, 1], [1, 3]]

TILE_INK = {
    "light": {"ink": "#1b1f24", "muted": "#5b6470", "strong": "#ffffff", "strong_from": 2.5},
    "dark": {"ink": "#e8eaed", "muted": "#a5adb8", "strong": "#101418", "strong_from": 2.1},
}
"""Text colours on the map's tiles: ``muted`` where the case is unclear, ``strong`` where the speed is at least 2**strong_from
times the baseline's, or at most its inverse."""

_INK = {"light": ("#1b1f24", "#5b6470", "#e3e6ea"), "dark": ("#e8eaed", "#a5adb8", "#343a42")}
_DIVERGING = {
    "light": ["#b84a00", "#e58a4c", "#f6cfb2", "#f3f4f5", "#b5d6ea", "#4f9fce", "#00598c"],
    "dark": ["#ff8a3d", "#b35a1f", "#5e361c", "#2a2f36", "#1d435b", "#2a7aab", "#5bbcf2"],
}


def config(theme: str) -> dict[str, Any]:
    """The Vega-Lite config of a theme ("light" or "dark")."""
    ink, faint, grid = _INK[theme]
    text = {"labelColor": ink, "titleColor": ink}
    return {
        "aria": False,  # the page labels the chart, and its points through a keyboard interface
        "background": "transparent",
        "font": "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif",
        "view": {"stroke": None},
        "axis": text | {"domainColor": faint, "tickColor": faint, "gridColor": grid, "labelFontSize": 11, "titleFontSize": 12},
        "legend": text | {"labelLimit": 160, "labelFontSize": 12, "titleFontSize": 12, "symbolSize": 90},
        "header": text | {"labelLimit": 180, "labelFontSize": 13, "labelFontWeight": 600, "titleFontSize": 12},
        "rule": {"color": faint},
        "text": {"color": ink},
        "point": {"color": ink},
        "line": {"color": ink},
        "range": {
            "category": OKABE_ITO[theme],
            "symbol": SHAPES,
            "diverging": _DIVERGING[theme],
        },
    }
