"""Heat maps of who wins where: speed of every backend relative to the baseline, over cell, H and T or B."""

import functools

import altair as alt

from rnnbench.compare.verdicts import RANKING_BAND, RANKING_MIN_ROUNDS
from rnnbench.reports import theme
from rnnbench.reports.caveats import NOISY
from rnnbench.reports.chart import AltairChart, Chart, Inputs, filled_by
from rnnbench.reports.encodings import BACKEND_HEADER, CELL_HEADER, lookup

TILE = 46
"""Width of a tile in pixels, before the page resizes it."""

TIE_HATCH = "M-1.5,-0.2L0.3,1M-0.3,-1L1.5,0.2M-1.5,0.5L-0.75,1M0.75,-1L1.5,-0.5"
UNCLEAR_HATCH = "".join(f"M{x / 10},{y}h0.05" for y in (-1, 1) for x in range(-14, 15, 7))
"""SVG paths of tile patterns, drawn as marks: strokes for "same", rows of dots for "unclear".  Both leave the middle free for
text."""


def _comparable(inputs: Inputs) -> bool:
    return len(inputs.backends) > 1 and not inputs.data.pairs.empty


def _draw(across: str, inputs: Inputs) -> AltairChart:
    """Speed of each backend relative to the one in the parameter ``baseline``."""
    data = inputs.data
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
    return (
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
            # both backends were timed, but never in the same round
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


_TOOLTIP = [
    alt.Tooltip("label:N", title="case"),
    alt.Tooltip("backend:N"),
    alt.Tooltip("state:N", title="result"),
    alt.Tooltip("speed:Q", title="times as fast as the baseline", format=".3f"),
    alt.Tooltip("speed_low:Q", title="interval from", format=".3f"),
    alt.Tooltip("speed_high:Q", title="to", format=".3f"),
]


_CAPTION = (
    "Each tile is one case. Its number is the backend's speed relative to the baseline (2.0: half the time; 0.5: double the "
    "time). Blue is faster than the baseline, orange is slower. Hatched with ≈: the same (the interval lies within "
    f"{RANKING_BAND:.0%} of 1). Dotted, with a grey number and ?: unclear (the interval contains 1 and reaches further, or "
    f"there were fewer than {RANKING_MIN_ROUNDS} rounds). ! in the corner: noisy (the machine disturbed more than {NOISY:.0%} "
    "of the rounds). ✕: failed. n/a: not supported. ·: the baseline has no time."
)


def _map(across: str, suite: str, *, always_expected: bool) -> Chart:
    sweep, missing = f"map_{across}", filled_by(suite)
    return Chart(
        name=sweep,
        title=f"Speed against the baseline over H and {across}",
        caption=_CAPTION,
        section="where",
        dataset="pairs",
        draw=functools.partial(_draw, across),
        applies=lambda inputs: _comparable(inputs) and inputs.swept(sweep),
        missing=lambda inputs: missing(inputs) if always_expected or inputs.swept(sweep) else None,
        sweep=sweep,
        tiles=across,
    )


OVER_LENGTH = _map("T", "sequence-length or hidden-size", always_expected=True)
OVER_BATCH = _map("B", "batch", always_expected=False)
