"""The report page: one HTML file with the summary, the charts, every number, and the scripts that draw them."""

import functools
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import vl_convert
from markupsafe import Markup

from rnnbench.networks.contract import CPU
from rnnbench.reports import theme
from rnnbench.reports.caveats import caveats
from rnnbench.reports.chart import Picture
from rnnbench.reports.charts import SECTIONS, pictures
from rnnbench.reports.claims import textbook_claims
from rnnbench.reports.devices import device_text
from rnnbench.reports.downsample import downsampled
from rnnbench.reports.failures import failure_tables
from rnnbench.reports.frames import Frames, to_pandas
from rnnbench.reports.overheads import break_even
from rnnbench.reports.provenance import provenance
from rnnbench.reports.published import published_rows
from rnnbench.reports.reproduce import TEMPLATES
from rnnbench.reports.roofline import kind_labels
from rnnbench.reports.rows import Rows, case_rows, chart_rows, device_names, reasons, records, samples, shown_backends
from rnnbench.reports.summary import summary
from rnnbench.reports.sweeps import AXES, scaling, shared, sweeps
from rnnbench.reports.text import clipped, percent
from rnnbench.results import disk


def write_html(results: Path | str, output: Path | str) -> Path:
    """Write the report of a results file as one HTML page that works offline; raises StoreError."""
    return save(render(to_pandas(results)), output)


def save(text: str, output: Path | str) -> Path:
    output = Path(output)
    disk.save(output, [text.encode()])
    return output


def render(data: Frames) -> str:
    """The report as HTML."""
    groups = sweeps(data.cases)
    kept = downsampled(data, groups)
    cases = case_rows(kept, groups)
    rows = chart_rows(kept, cases)
    shown = pictures(kept, cases)
    drawn_samples, whole = samples(kept, rows["times"])
    payload = {
        "backends": data.backends,
        "shown": shown_backends(data),
        "devices": device_names(data),
        "device_of": [_index(device_names(data), data.devices.get(name)) for name in data.backends],
        "roofed": _index(device_names(data), CPU),
        "baselines": [data.baselines.get(device) for device in device_names(data)],
        "sources": {name: repr(name) for name in data.backends},
        "templates": TEMPLATES,
        "seed": repr(data.run.settings.get("seed", 0)),
        "cases": columns(cases),
        "samples": {"rows": drawn_samples, "whole": whole},
        "reasons": reasons(kept, rows["times"]),
        "rows": {name: columns(dataset) for name, dataset in rows.items()},
        "scaling": columns(records(scaling(kept.summary, groups))),
        "sweeps": {name: {"labels": groups.labels[name], "common": groups.common[name]} for name in AXES}
        | {"roofline": {"labels": kind_labels(data), "common": ""}},
    }
    return template("report.html").render(
        **page(f"rnnbench: {data.run.suite} on {data.run.environment.get('machine', 'this machine')}", shown.drawn, payload),
        run=data.run,
        kept=len(cases),
        total=len(data.cases),
        answers=summary(data),
        caveats=len(caveats(data)),
        shared=shared(data.cases),
        sections=SECTIONS,
        pictures=shown.drawn,
        left_out=shown.left_out,
        break_even=[clipped(text) for text in break_even(data)] if len(data.startup) else [],
        claims=records(textbook_claims(data)),
        published=published_rows(data),
        baseline=data.baseline,
        timed_device=bool(data.summary["device_seconds"].notna().any()),
        devices=[device_text(device) for device in device_names(data)],
        shown=shown_backends(data),
        rounds=int(data.summary["rounds"].max()) if len(data.summary) else 0,
        **failure_tables(data),
        **provenance(data),
    )


def _index(names: list[str], name: str | None) -> int | None:
    return names.index(name) if name in names else None


def page(title: str, drawn: Mapping[str, Picture], payload: dict[str, Any]) -> dict[str, Any]:
    """What every page's template needs: title, chart library, and the payload with the chart specifications as JSON."""
    specifications = {
        name: {
            "spec": picture.chart.to_dict(),
            "dataset": picture.dataset,
            "sweep": picture.sweep,
            "phase": picture.phase,
            "overlay": picture.overlay,
            "tiles": picture.tiles,
            "fitted": picture.fitted,
        }
        for name, picture in drawn.items()
    }
    themes = {name: theme.config(name) for name in ("light", "dark")}
    return {
        "title": title,
        "payload": script_json(payload | {"charts": specifications, "themes": themes, "ink": theme.TILE_INK}),
        "bundle": _bundle(),
    }


@functools.cache
def _bundle() -> Markup:
    """Vega, Vega-Lite and Vega-Embed as one script; bundling takes about a second."""
    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return Markup(script.replace("</script", "<\\/script").replace("<!--", "<\\!--"))


def template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: package_file(name)),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["package_file"] = lambda name: Markup(package_file(name))
    environment.filters["number"] = lambda value: "no number" if value is None else f"{value:.3g}"
    environment.filters["percent"] = percent
    return environment.get_template(name)


def package_file(name: str) -> str:
    return (resources.files("rnnbench.reports") / name).read_text(encoding="utf-8")


def script_json(value: Any) -> Markup:
    """JSON for a script element: escapes the characters that could end the element, open a comment or break a line."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def columns(rows: Rows) -> dict[str, Any]:
    """Rows as columns; a constant column is stored as one value.  Takes a third of the space."""
    if not rows:
        return {"length": 0, "same": {}, "columns": {}}
    by_name = {name: [row[name] for row in rows] for name in rows[0]}
    same = {name: values[0] for name, values in by_name.items() if all(value == values[0] for value in values)}
    return {
        "length": len(rows),
        "same": same,
        "columns": {name: _indexed(values) for name, values in by_name.items() if name not in same},
    }


def _indexed(values: list[Any]) -> Any:
    """Repeating names as indices into a list of the distinct names; other values unchanged."""
    names = list(dict.fromkeys(values))
    if not all(name is None or isinstance(name, str) for name in names) or len(names) > len(values) / 4:
        return values
    place = {name: index for index, name in enumerate(names)}
    return {"names": names, "index": [place[value] for value in values]}
