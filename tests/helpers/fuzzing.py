"""Results files and command lines that nobody meant, drawn from a seed: ``mutated`` and ``command_line``."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

HOSTILE: list[Any] = [
    *(None, True, False, 0, -1, 1, 2, 2**24, 2**24 + 1, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63), 10**30, 10**400),
    *(0.5, -0.0, 1e308, 5e-324, float("nan"), float("inf"), float("-inf"), 1e-300),
    *(
        "",
        " ",
        "x",
        "x" * 5000,
        "\x00",
        "\x1b[2J",
        "a\nb",
        "\u202e",
        "\U0001f9e8",
        "../../etc/passwd",
        "</script>",
        "=1+1",
        "%s{0}$1",
    ),
    *("lstm", "tbptt", "float64", "numpy_ref", "unavailable", "2026-01-01", "9999-12-31T23:59:59+00:00", "1969", "nan", "1e9"),
    *([], {}, [[]], [1, 2, 3], [None], {"": None}, {"a": {"b": 1}}, [0.1] * 2000),
]

KEYS = ["kind", "case", "T", "layers", "rounds", "round", "samples", "unavailable", "runs", "commit", "versions", "", "x" * 300]


def mutated(content: bytes, draw: random.Random) -> bytes:
    """The content of a results file, changed in one to four places."""
    for _ in range(draw.choice([1, 1, 1, 2, 3, 4])):
        content = draw.choice([_of_a_value, _of_a_value, _of_a_value, _of_a_key, _of_bytes, _of_lines])(content, draw)
    return content


def _of_lines(content: bytes, draw: random.Random) -> bytes:
    lines = content.splitlines(keepends=True) or [b""]
    place = draw.randrange(len(lines))
    change: list[Callable[[], Any]] = [
        lambda: lines.pop(place),
        lambda: lines.insert(draw.randrange(len(lines) + 1), lines[place]),
        lambda: lines.extend(lines[place:] * 3),
        lambda: draw.shuffle(lines),
        lambda: lines.__setitem__(place, lines[place][: draw.randrange(len(lines[place]) + 1)]),
        lambda: lines.insert(place, draw.choice([b"\n", b"{}\n", b"null\n", b"[" * 5000 + b"\n", b"\xff\xfe\n", b"1e999\n"])),
        lambda: lines.__delitem__(slice(place, None)),
    ]
    draw.choice(change)()
    return b"".join(lines)


def _of_bytes(content: bytes, draw: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(draw.choice([1, 1, 5, 50])):
        if changed:
            changed[draw.randrange(len(changed))] = draw.choice([draw.randrange(256), 0x80, 0, 0x22, 0x7B, 0x0A, 0x39])
    return bytes(changed)


def _of_a_value(content: bytes, draw: random.Random) -> bytes:
    def change(owner: Any, key: Any) -> None:
        owner[key] = draw.choice(HOSTILE)

    return _inside(content, draw, change)


def _of_a_key(content: bytes, draw: random.Random) -> bytes:
    def change(owner: Any, key: Any) -> None:
        value = owner.pop(key)
        if draw.random() < 0.5 and isinstance(owner, dict):
            owner[draw.choice(KEYS)] = value

    return _inside(content, draw, change)


def _inside(content: bytes, draw: random.Random, change: Callable[[Any, Any], None]) -> bytes:
    """Change one item of one object or list in one line, or the same in all lines that have it."""
    lines = content.splitlines(keepends=True)
    if not lines:
        return content
    place = 0 if draw.random() < 0.3 else draw.randrange(len(lines))
    try:
        row = json.loads(lines[place])
    except (ValueError, RecursionError):
        return content
    owners = [one for one in _containers(row) if one]
    if not owners:
        return content
    owner = draw.choice(owners)
    change(owner, draw.choice(list(owner)) if isinstance(owner, dict) else draw.randrange(len(owner)))
    lines[place] = json.dumps(row).encode() + b"\n"
    return b"".join(lines)


def _containers(value: Any) -> list[Any]:
    if not isinstance(value, dict | list):
        return []
    return [value, *(inner for one in (value.values() if isinstance(value, dict) else value) for inner in _containers(one))]


VALUES = [
    *(
        "",
        "0",
        "-1",
        "1",
        "2",
        "1e9",
        "nan",
        "inf",
        "-inf",
        "99999999999999999999",
        "16777217",
        "0x10",
        "1_0",
        "\uff11",
        "two",
        "--",
        "-",
    ),
    *(
        "a,b",
        ",",
        "numpy_ref",
        "numpy_ref,numpy_ref",
        "auto",
        "nobody",
        "\x1b[2J",
        "a\nb",
        "\udc80",
        "x" * 300,
        "../..",
        "/dev/null/x",
    ),
    *(
        "lstm",
        "gru",
        "step",
        "float32",
        "complex64",
        "10m",
        "0s",
        "1.5h",
        "0-1",
        "0,99999",
        "3-1",
        "HEAD",
        "quick",
        "nothing.toml",
    ),
]


def command_line(parsers: dict[str, dict[str, Any]], places: list[Path], draw: random.Random) -> list[str]:
    """A command with options of its own and of others, and values that may or may not be of their kind."""
    name = draw.choice([*parsers, draw.choice(VALUES)])
    known = parsers.get(name, {})
    options = [*known.get("options", []), *known.get("options", []), "--help", "--nothing", "-x"]
    words = [name, *known.get("needed", [])]
    for _ in range(draw.choice([0, 1, 2, 3, 5])):
        kind = draw.random()
        value = str(draw.choice(places)) if draw.random() < 0.4 else draw.choice(VALUES)
        words += [draw.choice(options)] * (kind < 0.7) + [value] * (kind > 0.2)
    return words
