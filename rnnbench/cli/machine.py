"""``rnnbench machine``: facts about this machine, what it reaches at most, and what is wrong with it for measuring."""

import datetime
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rnnbench.cli import terminal
from rnnbench.cli.common import OK

if TYPE_CHECKING:
    from rnnbench.machine.snapshot import HealthCheck, Machine, Roof, Roofs

_QUIET_SECONDS = 1.0
"""Between two looks at the counters while this process rests: a hundred ticks of the kernel's clock on each processor."""

_MAX_DISTURBED = 1.25
"""Of the best to the median of a roof's repeats, or the other way round for a latency."""

_WIDTH = 118
_LABEL = 18


def machine(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output instead of text.")] = False,
    no_roofs: Annotated[bool, typer.Option("--no-roofs", help="Only facts and what is wrong; measure nothing.")] = False,
    output: Annotated[str, typer.Option("--output", "-o", metavar="DIR", help="Where results go.")] = "results",
) -> int:
    """Describe this machine: facts, limits, and what disturbs timing.

    Examples:
    $ rnnbench machine
    $ rnnbench machine --no-roofs
    """
    from rnnbench.machine.facts import machine_name
    from rnnbench.machine.snapshot import document, results_folder, write_machine

    folder = results_folder(Path(output), machine_name())  # before half a minute is spent
    look = look_at_machine(roofs=not no_roofs)
    path = write_machine(look, folder)
    if as_json:
        terminal.show_document(document(look))
        terminal.note(f"stored: {path}")
    else:
        terminal.show(text(look))
        terminal.show(f"stored: {path}")
    return OK


def look_at_machine(*, roofs: bool) -> "Machine":
    """All facts, with or without the roofs, which take half a minute."""
    import msgspec

    from rnnbench.machine import facts, health, topology
    from rnnbench.machine.snapshot import Machine

    environment = facts.environment()
    pools = facts.thread_pools()
    first = health.sample()
    time.sleep(_QUIET_SECONDS)
    second = health.sample()
    measured, last = None, second
    if roofs:
        from rnnbench.machine.roofs import measure_roofs

        terminal.tell("measuring roofs, up to half a minute")
        measured = measure_roofs(msgspec.convert(environment["caches"], list[topology.Cache] | None), environment["cores"])
        last = health.sample()
    return Machine(
        recorded=datetime.datetime.now(datetime.UTC).isoformat(),
        environment=environment,
        governors=topology.governors(),
        boost=topology.boost(),
        thread_pools=pools,
        findings=health.examine(first, second, last, measured),
        roofs=measured,
    )


def text(look: "Machine") -> str:
    """The whole look as lines to read."""
    moment = datetime.datetime.fromisoformat(look.recorded)
    lines = [f"{look.environment['machine']}, {moment:%Y-%m-%d %H:%M} UTC", "", *_facts(look), ""]
    if look.roofs:
        lines += [*_roofs(look.roofs), _for_versus(look.roofs, look.findings)]
    else:
        lines += ["roofs were not measured (--no-roofs)"]
    return "\n".join([*lines, "", *_findings(look)])


def _facts(look: "Machine") -> Iterator[str]:
    facts = look.environment
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    virtual = {True: ", a virtual machine", False: "", None: ""}[facts["virtual_machine"]]
    yield from _fact("processor", f"{facts['cpu']}, {facts['architecture']}{virtual}")
    yield from _fact("cores", f"{facts['cores']} for this process; hyperthreads: {_yes(facts['smt'])}")
    yield from _fact("caches", "; ".join(map(_cache, facts["caches"])) if facts["caches"] else "not known")
    yield from _fact("vectors", _list(facts["vector_instructions"]))
    yield from _fact("memory", f"{facts['memory_gib']} GiB")
    yield from _fact("GPUs", "; ".join(", ".join(gpu.values()) for gpu in facts["gpus"]) if facts["gpus"] else "none found")
    yield from _fact("clock", f"governor: {_list(look.governors)}; boost: {_yes(look.boost)}")
    yield from _fact("system", f"{facts['os']}, Python {facts['python']} ({facts['implementation']})")
    yield from _fact("libraries", versions)
    for pool in look.thread_pools:
        kernels = f", kernels for {pool['kernels']}" if pool["kernels"] else ""
        yield from _fact(pool["api"], f"{pool['library']} {pool['version']}, {pool['threads']} threads{kernels}")
    if facts["commit"]:
        yield from _fact("code", f"commit {facts['commit'][:12]}{', with changes' if facts['dirty'] else ''}")


def _roofs(roofs: "Roofs") -> Iterator[str]:
    counts = sorted({roof.threads for roof in (*roofs.multiply_adds, *roofs.reads)})
    yield _row("roofs", [f"{threads} thread{'s' * (threads > 1)}" for threads in counts], "best of the repeats")
    for name, of_name in _by_name(roofs.multiply_adds).items():
        yield _row(f"{name} multiply-adds", [_figure(of_name, threads, 1e-9) for threads in counts], "GFLOP/s")
    for name, of_name in _by_name(roofs.reads).items():
        sizes = " or ".join(dict.fromkeys(_size(roof.bytes or 0) for roof in of_name.values()))
        unit = f"GB/s, {sizes} a thread"
        yield _row(f"read from {name}", [_figure(of_name, threads, 1e-9) for threads in counts], unit)
    for roof in roofs.barrier:
        yield _row(f"barrier of {roof.threads} threads", [f"{roof.best * 1e9:.0f}"], "ns")
    yield _row("empty jitted call", [f"{roofs.empty_call.best * 1e9:.0f}"], "ns")
    yield _row("step of the clock", [f"{roofs.clock_step * 1e9:.0f}"], "ns")
    yield from (f"not measured: {reason}" for reason in roofs.missing)
    disturbed = [roof for roof in (*roofs.multiply_adds, *roofs.reads) if roof.best > _MAX_DISTURBED * roof.median]
    if disturbed:
        every = len(roofs.multiply_adds) + len(roofs.reads)
        line = (
            f"disturbed: in {len(disturbed)} of {every} rates the best repeat is more than {_MAX_DISTURBED:g} times the "
            "median, so even the best may be too low; measure again on a quiet machine"
        )
        yield from textwrap.wrap(line, _WIDTH)


def _for_versus(roofs: "Roofs", findings: "Sequence[HealthCheck]") -> str:
    """The options that give the float32 peaks to `rnnbench versus`; all threads' not where something held them up."""
    alone = any(finding.check == "all threads" and finding.state == "wrong" for finding in findings)
    peaks = [roof for roof in roofs.multiply_adds if roof.name == "float32" and (roof.threads == 1 or not alone)]
    return "for rnnbench versus: " + " ".join(f"--roof {roof.threads}={roof.best / 1e9:.4g}" for roof in peaks)


def _findings(look: "Machine") -> Iterator[str]:
    by_state = {state: [f for f in look.findings if f.state == state] for state in ("wrong", "unknown", "fine")}
    yield "wrong for measuring" if by_state["wrong"] else "nothing was found that is wrong for measuring"
    for finding in by_state["wrong"]:
        yield from _fact(finding.check, f"{finding.seen}. {finding.mend}")
    for state, title in (("unknown", "not known"), ("fine", "fine")):
        if by_state[state]:
            yield title
        for finding in by_state[state]:
            yield from _fact(finding.check, finding.seen)


def _by_name(roofs: "Sequence[Roof]") -> "dict[str, dict[int, Roof]]":
    found: dict[str, dict[int, Any]] = {}
    for roof in roofs:
        found.setdefault(roof.name, {})[roof.threads] = roof
    return found


def _figure(of_name: "dict[int, Roof]", threads: int, unit: float) -> str:
    return f"{of_name[threads].best * unit:.1f}" if threads in of_name else "-"


def _row(label: str, figures: Sequence[str], unit: str) -> str:
    return f"{label:<24}" + "".join(f"{figure:>12}" for figure in figures) + f"  {unit}"


def _fact(label: str, value: str) -> list[str]:
    first = f"  {label:<{_LABEL}}  "
    return textwrap.wrap(value, _WIDTH, initial_indent=first, subsequent_indent=" " * len(first))


def _cache(cache: dict[str, Any]) -> str:
    letter = {"data": "d", "instruction": "i"}.get(cache["kind"], "")
    shared = f" shared by {cache['shared_by']}" if cache["shared_by"] > 1 else ""
    return f"L{cache['level']}{letter} {_size(cache['bytes'])}{shared}"


def _size(number: int) -> str:
    for unit, bytes_in_unit in (("GiB", 2**30), ("MiB", 2**20)):
        if number >= bytes_in_unit:
            return f"{number / bytes_in_unit:.4g} {unit}"
    return f"{number / 1024:.4g} KiB"


def _list(names: Sequence[str] | None) -> str:
    return "not known" if names is None else ", ".join(names) or "none"


def _yes(value: bool | None) -> str:
    return {True: "yes", False: "no", None: "not known"}[value]
