"""The map of who wins where: the speed of every backend against the baseline, over cell, H and T or B."""

import altair as alt

from rnnbench.compare.verdicts import RANKING_BAND, RANKING_MIN_ROUNDS
from rnnbench.reports import theme
from rnnbench.reports.caveats import NOISY
from rnnbench.reports.encodings import BACKEND_HEADER, CELL_HEADER, Picture, lookup
from rnnbench.reports.frames import Frames

TILE = 46
TIE_HATCH = "M-1.5,-0.2L0.3,1M-0.3,-1L1.5,0.2M-1.5,0.5L-0.75,1M0.75,-1L1.5,-0.5"
UNCLEAR_HATCH = "".join(f"M{x / 10},{y}h0.05" for y in (-1, 1) for x in range(-14, 15, 7))
"""SVG paths of a tile's pattern, drawn as a mark: strokes for the same, rows of dots for an unclear case.  Both
leave the middle to the text."""


def heatmap(data: Frames, backends: list[str], across: str) -> Picture:
    """Speed of each backend over the baseline; the baseline is the parameter of that name."""
    axis = alt.Axis(labelAngle=0, domain=False, ticks=False, labelOverlap=True)
    x = alt.X(f"{across}:O", title=across, axis=axis)
    y = alt.Y("H:O", title="H", sort="descending", axis=axis)
    base = alt.Chart().encode(x=x, y=y, tooltip=_TOOLTIP)
    scale = alt.Scale(type="linear", domain=[-3, 3], clamp=True, range="diverging", interpolate="rgb")
    legend = alt.Legend(
        title="times as fast as the baseline",
        titleLimit=400,
        orient="top",
        values=[-3, -2, -1, 0, 1, 2, 3],
        labelExpr="datum.value < 0 ? '1/' + pow(2, -datum.value) : pow(2, datum.value) + ''",
        gradientLength=280,
    )
    tiles = base.transform_filter("isValid(datum.gain)").mark_rect(strokeWidth=1).encode(
        color=alt.Color("gain:Q", scale=scale, legend=legend)
    )  # fmt: skip
    hatches = [
        base.transform_filter(f"datum.state === '{state}'")
        .mark_point(filled=False, strokeWidth=width, strokeCap="round", opacity=opacity)
        .encode(shape=alt.ShapeValue(path), size=alt.value(alt.expr("tile * tile * 0.36")))
        for state, path, width, opacity in (("same", TIE_HATCH, 1, 0.45), ("unclear", UNCLEAR_HATCH, 1.5, 0.5))
    ]
    text = base.mark_text(fontSize=alt.expr("tile > 36 ? 11 : tile > 28 ? 9 : 7.5")).encode(
        text="shown:N",
        color=alt.when("abs(datum.gain) > strong_from")
        .then(alt.ColorValue(alt.expr("strong")))
        .when("datum.state === 'unclear'")
        .then(alt.ColorValue(alt.expr("muted")))
        .otherwise(alt.ColorValue(alt.expr("ink"))),
    )
    noisy = base.transform_filter("datum.noisy && isValid(datum.gain)").mark_text(
        text="!",
        fontWeight="bold",
        fontSize=alt.expr("tile > 36 ? 11 : 8"),
        dx=alt.expr("tile * 0.42"),
        dy=alt.expr("-tile * 0.18"),
    )
    chart = (
        alt.layer(tiles, *hatches, text, noisy, width=alt.Step(TILE), height=alt.Step(TILE * 0.66), data=alt.NamedData("pairs"))
        .facet(
            row=alt.Row("backend_order:O", header=BACKEND_HEADER),
            column=alt.Column("cell_order:O", header=CELL_HEADER),
            spacing=10,
        )
        .transform_filter("datum.a === baseline || datum.b === baseline")
        .transform_calculate(
            backend="datum.a === baseline ? datum.b : datum.a",
            backend_order="datum.a === baseline ? datum.b_order : datum.a_order",
            status="datum.a === baseline ? datum.status_b : datum.status_a",
            base_status="datum.a === baseline ? datum.status_a : datum.status_b",
            speed="!isValid(datum.speedup) ? null : datum.a === baseline ? 1 / datum.speedup : datum.speedup",
            speed_low="!isValid(datum.speedup) ? null : datum.a === baseline ? 1 / datum.high : datum.low",
            speed_high="!isValid(datum.speedup) ? null : datum.a === baseline ? 1 / datum.low : datum.high",
        )
        .transform_calculate(
            state="datum.status !== 'measured' ? datum.status : datum.base_status !== 'measured' ? 'no baseline'"
            # two backends that were timed, but in no round both
            " : !isValid(datum.verdict) ? 'unclear'"
            " : datum.verdict === 'same' || datum.verdict === 'unclear' ? datum.verdict"
            " : datum.speed > 1 ? 'faster' : 'slower'",
        )
        .transform_calculate(
            gain="datum.status !== 'measured' || datum.base_status !== 'measured' ? null"
            " : datum.state === 'same' || datum.state === 'unclear' ? 0 : log(datum.speed) / LN2",
            number="!isValid(datum.speed) ? '' : datum.speed < 1.995 ? format(datum.speed, '.2f')"
            " : format(datum.speed, datum.speed < 9.95 ? '.1f' : '.0f')",
        )
        .transform_calculate(
            shown="datum.state === 'unsupported' ? 'n/a' : datum.state === 'no baseline' ? '·' : datum.state === 'missing' ? ''"
            " : datum.status !== 'measured' ? '✕' : datum.state === 'same' ? '≈'"
            " : datum.state === 'unclear' ? datum.number + '?' : datum.number",
        )
        .add_params(
            alt.param(name="baseline", value=data.baseline),
            lookup("backends", data.backends),
            lookup("cells", data.cases["cell"]),
            alt.param(name="tile", value=TILE),
            *(alt.param(name=name, value=value) for name, value in theme.TILE_INK["light"].items()),
        )
    )
    caption = (
        "Each tile is one case; its number says how many times as fast as the baseline the backend is (2.0: half the time; "
        "0.5: double). Blue is faster than the baseline, orange slower. Hatched with ≈: the same (the interval lies within "
        f"{RANKING_BAND:.0%} of 1). Dotted with a grey number and ?: unclear (the interval contains 1 but reaches further, or "
        f"there were fewer than {RANKING_MIN_ROUNDS} rounds). ! in the corner: noisy, the machine disturbed over "
        f"{NOISY:.0%} of the rounds. ✕ failed, n/a not supported, · the baseline has no time there."
    )
    return Picture(
        f"map_{across}", f"Speed against the baseline over H and {across}", caption, "pairs", chart, sweep=f"map_{across}"
    )


_TOOLTIP = [
    alt.Tooltip("label:N", title="case"),
    alt.Tooltip("backend:N"),
    alt.Tooltip("state:N", title="result"),
    alt.Tooltip("speed:Q", title="times as fast as the baseline", format=".3f"),
    alt.Tooltip("speed_low:Q", title="interval from", format=".3f"),
    alt.Tooltip("speed_high:Q", title="to", format=".3f"),
]
