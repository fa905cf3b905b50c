"""The pages keep their word: their commands and their Python run, and print what they say.  Takes 60 s.

Every fenced block of README.md, CONTRIBUTING.md and docs/ is collected.  What measures or takes minutes is tried as ``tried``
says, or stands in ``NOT_TRIED`` with the reason.  ``make docs`` builds the pages themselves, and is no test.
"""

import contextlib
import inspect
import io
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple, get_args

import pytest
from helpers import stored_results, synthetic_results
from markdown_it import MarkdownIt

import rnnbench
import rnnbench.networks
from rnnbench.cli.main import main
from rnnbench.data import DATASETS
from rnnbench.results.rows import AnyRow
from rnnbench.suite.case import Case
from rnnbench.suite.suite import _KEYS, load_suite, suite_names
from rnnbench.training import Config, load_config, train
from rnnbench.training.config import DATA, SECTIONS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text("utf-8") for page in PAGES if "auto_examples" not in page.parts}
README = TEXTS["README.md"]

INSTEAD = {
    # a command line -> what is tried in its place
    "rnnbench versus results": "rnnbench bars results",
    "rnnbench machine": "rnnbench machine --no-roofs",
    "rnnbench latency --quick": "rnnbench latency --backends numpy_ref --steps 10 --rounds 1 --filter H32",
    "rnnbench latency --backends numba_cpu,onnxruntime --csv table.csv --chart steps.svg": (
        "rnnbench latency --backends numpy_ref --steps 10 --rounds 1 --filter H32 --csv table.csv --chart steps.svg"
    ),
    "rnnbench check mine.py": "rnnbench check mine.py --level smoke --cell gru --gradients-only",
    "rnnbench check mine.py --level full": "rnnbench check mine.py --level smoke --cell gru --gradients-only",
    "rnnbench check mine.py --random 1000 --seed 7": "rnnbench check mine.py --level smoke --cell gru --random 3 --seed 7",
    "rnnbench check mine.py --dtype float32 --json": "rnnbench check mine.py --dtype float32 --json --level smoke --cell gru",
    "rnnbench run quick --affinity 0-1": "rnnbench run quick --affinity 0",
    "rnnbench best --cell lstm -T 64 -B 32 -H 64 --measure --backends numba_cpu,torch_nn": (
        "rnnbench best --cell lstm -T 2 -B 1 -H 3 --measure --backends numpy_ref"
    ),
    "rnnbench compare results --backends torch_nn numba_cpu --fail-if regression --json": (
        "rnnbench compare results/after --backends numba_cpu torch_nn --fail-if regression --json"
    ),
    "rnnbench sample training/lm-numba_cpu-quick --length 200": "rnnbench sample training/earlier --length 200",
    "rnnbench tune classify --quick --over model.hidden=8,16,32 --seeds 2": (
        "rnnbench tune classify --quick --backend numpy_ref --steps 4 --over model.hidden=2,4 --seeds 2"
    ),
    "rnnbench sample training/lm-numba_cpu-quick --temperature 0.7 --top-k 20 --seed 1": (
        "rnnbench sample training/earlier --temperature 0.7 --top-k 20 --seed 1"
    ),
    "rnnbench train lm --quick --resume --steps 150": "rnnbench train lm --quick --resume --steps 3 --out training/earlier",
    "rnnbench study gradient-flow --quick --out studies": (
        "rnnbench study gradient-flow --quick --out studies --backends numpy_ref --seeds 1"
    ),
    "rnnbench report results --charts charts --as png": "rnnbench report results/after --charts charts --as png",
    "rnnbench report --asv .asv/results -o asv.html": "rnnbench report --asv exported -o asv.html",
    "pytest --rnnbench-backend=mine.py --rnnbench-level=smoke": (
        "pytest --rnnbench-backend=mine.py --rnnbench-level=smoke --collect-only -q"
    ),
}

PLANNED = "--backends numpy_ref --dry-run"
"""Added to each ``rnnbench run``, in place of its own backends: it is planned, and nothing is measured."""

MEASURES, COMPILES = "measures for minutes", "compiles for minutes"

NOT_TRIED = {
    # the beginning of a command line -> why it is not tried, and which tests do
    "asv ": f"{MEASURES}; tests/test_asv.py runs the classes",
    "rnnbench backends --facts": "imports every library; tests/test_cli_lists.py",
    "rnnbench run --resume": "needs an interrupted run; tests/test_resume.py",
    "rnnbench compare --commits": f"{MEASURES}; tests/test_compare_runs.py",
    "rnnbench study truncation": "trains for minutes; tests/test_study_command.py",
    "rnnbench study time-to-loss": "trains for minutes; tests/test_study_command.py",
    "rnnbench study missing-values": "trains for minutes; tests/test_study_command.py",
    "rnnbench self-test": f"{MEASURES}; tests/test_statistics.py, tests/test_siblings.py",
    "rnnbench check --self-test": "examines 473 bugs; tests/test_self_test.py",
    "rnnbench check --device simulator": "simulates for minutes; tests/test_numba_cuda.py",
    "rnnbench cuda-audit": f"{COMPILES}; tests/test_cuda_audit.py",
    ".venv/bin/pytest": "other tests",
    ".venv/bin/pre-commit": "changes the checkout",
}

LANGUAGES = {"console", "python", "text", "toml"}


class Block(NamedTuple):
    """A fenced block: where it stands, its language, what it holds, and the block before it where no text lies between."""

    page: str
    line: int
    language: str
    content: str
    before: "Block | None" = None


def blocks(page: str) -> Iterator[Block]:
    previous, ended = None, None
    for token in MarkdownIt("commonmark").enable("table").parse(TEXTS[page]):
        if token.type == "code_block":
            yield Block(page, token.map[0] + 1, "indented", token.content)
        if token.type != "fence" or token.info.startswith("{"):  # a directive of Sphinx's
            continue
        begins, ends = token.map
        found = Block(page, begins + 1, token.info.strip(), token.content, previous if ended == begins - 1 else None)
        previous, ended = found, ends
        yield found


BLOCKS = [block for page in TEXTS for block in blocks(page)]


class Command(NamedTuple):
    """A command line of a ``console`` block, without its comment, and the lines that it is said to print."""

    line: str
    prints: tuple[str, ...]


def commands(block: Block) -> Iterator[Command]:
    for part in re.split(r"^\$ ", block.content, flags=re.MULTILINE)[1:]:
        line, *prints = part.splitlines()
        yield Command(re.sub(r"\s+# .*$", "", line), tuple(prints))


COMMANDS: dict[str, Command] = {}
for _block in BLOCKS:
    for _command in commands(_block) if _block.language == "console" else ():
        if _command.line not in COMMANDS or _command.prints:
            COMMANDS[_command.line] = _command


def reason_not_to_try(line: str) -> str | None:
    return next((why for beginning, why in NOT_TRIED.items() if line.startswith(beginning)), None)


def tried(line: str) -> str:
    """What is tried in place of a command line."""
    line = INSTEAD.get(line, line)
    return f"{line} {PLANNED}" if line.startswith("rnnbench run") else line


TRIED = {line: tried(line) for line in COMMANDS if reason_not_to_try(line) is None}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """What the pages take for granted: results, a backend of the reader's own, a suite, a text, a run of training."""
    folder = tmp_path_factory.mktemp("reader")
    sizes = [Case("lstm", "step", T, 32, H, H) for T in (32, 64) for H in (32, 64, 128)]
    times = {
        (name, case): [case.T * case.H * cost] * 6 for case in sizes for name, cost in (("numba_cpu", 2e-7), ("torch_nn", 1e-7))
    }
    for name in ("before", "after"):
        (folder / "results" / name).mkdir(parents=True)
        stored_results.write(folder / "results" / name / f"20260101-{name}.jsonl", times)
    with pytest.MonkeyPatch.context() as fewer:  # cases, which charts take seconds to draw
        fewer.setattr(synthetic_results, "LENGTHS", (16, 64, 256))
        fewer.setattr(synthetic_results, "HIDDEN", (32, 64))
        for name in ("a", "b"):
            synthetic_results.write(folder / "results" / f"{name}.jsonl", hostile=False, rounds=5)
    shutil.copy(ROOT / "rnnbench/data/template.py", folder / "mine.py")
    (folder / "mine.toml").write_text(next(block.content for block in BLOCKS if "[[grid]]" in block.content))
    (folder / "my_corpus.txt").write_text("to be or not to be " * 100)
    (folder / "book.toml").write_text(next(block.content for block in BLOCKS if "task =" in block.content))
    train(load_config("lm", quick=True, steps=2), folder / "training/earlier")
    return folder


@pytest.fixture
def folder(files, tmp_path, monkeypatch) -> Iterator[Path]:
    """A copy of them that is the current folder."""
    here = tmp_path / "here"
    shutil.copytree(files, here)
    monkeypatch.chdir(here)
    handler = signal.getsignal(signal.SIGTERM)  # a run sets its own
    yield here
    signal.signal(signal.SIGTERM, handler)


def said_by(line: str) -> tuple[int, str]:
    """The exit code and the output of a command line of ours, run in this process."""
    output = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)  # documents are written as bytes
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            code = main(shlex.split(line)[1:])
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
    return code, output.buffer.getvalue().decode()  # type: ignore[attr-defined]


def plain(words: str) -> str:
    """Without the blanks that set columns apart."""
    return " ".join(words.split())


def test_every_block_names_a_language_that_is_tried_or_only_read():
    assert [(block.page, block.line) for block in BLOCKS if block.language not in LANGUAGES] == []
    assert COMMANDS.keys() >= {"make bench", "rnnbench run quick --quick"}


def test_no_entry_of_the_tables_is_left_over():
    assert [line for line in INSTEAD if line not in COMMANDS] == []
    assert [text for text in NOT_TRIED if not any(line.startswith(text) for line in COMMANDS)] == []


@pytest.mark.parametrize("line", [line for line in TRIED if line.startswith("rnnbench ")])
def test_a_command_of_a_page_does_what_it_says(line, folder):
    if line.startswith("rnnbench report --asv"):
        assert said_by("rnnbench export asv results/after -o exported")[0] == 0
    if ">" in line:
        line, _, target = line.partition(" > ")
        code, said = said_by(line)
        assert (code, said) == (0, (folder / target).read_text())
        return
    code, said = said_by(TRIED[line])
    assert code == 0, said
    if TRIED[line] == line:
        said_lines = [plain(words) for words in said.splitlines()]
        fixed = [plain(words) for words in COMMANDS[line].prints if not re.search(r"\d|\.\.\.", words)]
        assert [words for words in fixed if words not in said_lines] == []


INLINE = set(re.findall(r"`(rnnbench [a-z][^`]*)`", "".join(TEXTS.values())))

INCLUDED = [*ROOT.glob("impls/*/README.md")]
"""Pages include these, whose programs need a GPU: of their commands only the options are looked up."""
for _page in INCLUDED:
    INLINE |= set(re.findall(r"^ {4}(rnnbench [a-z].*?)(?: +#.*)?$", _page.read_text("utf-8"), re.MULTILINE))


def test_every_page_that_is_included_is_looked_at():
    included = {
        (ROOT / page).parent.joinpath(target).resolve()
        for page, text in TEXTS.items()
        for target in re.findall(r"^```{include} (.*)$", text, re.MULTILINE)
    }
    assert included == {ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *INCLUDED}


@pytest.mark.parametrize("line", sorted(INLINE))
def test_a_command_within_a_sentence_has_its_options(line, folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # of the terminal that help is laid out for
    words = line.replace("rnnbench versus", "rnnbench bars").split()[1:]
    command = words[: 2 if words[0] == "self-test" and len(words) > 1 else 1]
    code, said = said_by(f"rnnbench {' '.join(command)} --help")
    assert code == 0, said
    assert [word for word in words if word.startswith("--") and not re.search(rf"{word}\b", said)] == []


@pytest.mark.parametrize("line", [line for line in TRIED if not line.startswith("rnnbench ")])
def test_a_command_for_other_tools_names_what_is_there(line, folder):
    program, *words = shlex.split(TRIED[line])
    if program == "make":
        targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        assert set(words) <= targets
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert set(re.findall(r"[\w-]+", line.partition("[")[2].partition("]")[0])) <= extras.keys()
    elif program == "pytest":
        done = subprocess.run([sys.executable, "-m", "pytest", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    else:
        pytest.fail(f"{line!r} is neither tried nor in NOT_TRIED")


def run_python(page: str, replaced: tuple[str, str] = ("", "")) -> None:
    """Run the Python of a page, one block after the other, and compare what is printed with the ``text`` that follows."""
    names: dict[str, object] = {}
    for block in (block for block in BLOCKS if block.page == page and block.language == "python"):
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile(block.content.replace(*replaced), f"{page}:{block.line}", "exec"), names)
        shown = next((other.content for other in BLOCKS if other.before == block and other.language == "text"), "")
        assert_same(output.getvalue().split(), shown.split())


def assert_same(got: list[str], wanted: list[str]) -> None:
    assert len(got) == len(wanted), (got, wanted)
    for word, expected in zip(got, wanted, strict=True):
        if re.fullmatch(r"\d+\.\d+", expected):
            assert float(word) == pytest.approx(float(expected), rel=1e-5)  # shown with six digits
        else:
            assert word == expected


@pytest.mark.parametrize("page", sorted({block.page for block in BLOCKS if block.language == "python"}))
def test_the_python_of_a_page_runs_and_prints_what_the_page_says(page, folder):
    run_python(page)


@pytest.mark.parametrize("name", ["numpy_ref", "torch_nn", "torch_eager", "torch_compile", "jax_scan"])
def test_the_readme_prints_the_same_numbers_on_every_backend(name, folder):
    try:
        rnnbench.load_backend(name)
    except rnnbench.BackendUnavailable as reason:
        pytest.skip(str(reason))
    usual = "import numba_cpu as rnn"
    assert usual in README
    run_python("README.md", (usual, f"import {name} as rnn"))


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "toml"], ids=lambda b: f"{b.page}:{b.line}")
def test_toml_of_a_page_is_sound(block, tmp_path):
    assert tomllib.loads(block.content)
    if "[[grid]]" in block.content:
        (tmp_path / "mine.toml").write_text(block.content)
        assert load_suite(tmp_path / "mine.toml").cases


@pytest.mark.parametrize("page", [page for page in TEXTS if page not in ("docs/contributing.md", "docs/changelog.md")])
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#\s]+)", TEXTS[page]):
        if "://" not in target:
            assert ((ROOT / page).parent / target).exists(), target


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/layout.md", "docs/files.md", "docs/checking.md", "docs/contract.md"])
def test_the_files_that_a_page_names_are_there(page):
    named = re.findall(r"`([\w.]+/[\w./-]*)`", TEXTS[page])
    made = ("results/", "build/")
    assert [name for name in named if not name.startswith(made) and "NAME" not in name and not list(ROOT.glob(name))] == []


def test_the_pages_name_every_backend_and_every_suite():
    names = {entry.name for entry in rnnbench.backends() + rnnbench.peers() + rnnbench.choosers()}
    assert set(re.findall(r"^\| `(\w+)` \|", TEXTS["docs/backends.md"], re.MULTILINE)) == names
    assert set(re.findall(r"^\| `([\w-]+)` \|", TEXTS["docs/workloads.md"].partition("## Run a part")[0], re.MULTILINE)) == set(
        suite_names()
    )


def test_the_page_of_file_formats_has_every_field_of_a_row():
    for row in get_args(AnyRow):
        found = re.search(rf"^\| `{row.__name__.lower()}` \|[^|]*\|([^|;]*)", TEXTS["docs/files.md"], re.MULTILINE)
        assert found, row
        assert set(re.findall(r"`(\w+)`", found[1])) == set(row.__struct_fields__) - {"case", "backend"}


def test_the_page_of_workloads_has_every_key_of_a_grid():
    table = TEXTS["docs/workloads.md"].partition("| key of a grid |")[2]
    assert set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\|([^|]*)\|", table, re.MULTILINE)))) == set(_KEYS)


def test_the_page_of_training_has_every_key_and_every_data_set_with_its_licence():
    page = TEXTS["docs/training.md"]
    table = page.partition("| key |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`([\w.]+)`", "".join(re.findall(r"^\|([^|]*)\|", table, re.MULTILINE))))
    kinds = [("data.", kind) for kind in DATA.values()] + [(f"{name}.", kind) for name, kind in SECTIONS.items()]
    keys = {f"{place}{field.name}" for place, kind in kinds for field in fields(kind)}
    assert named == keys | {field.name for field in fields(Config)} - {"data", *SECTIONS}
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.partition("| name |")[2].splitlines()[2:]]
    told = {row[0].strip("`"): row[2] for row in rows if len(row) == 5}
    assert told == {data.name: data.licence for data in DATASETS.values()}


def test_the_api_has_every_public_name():
    errors = {name for name, value in vars(rnnbench.errors).items() if isinstance(value, type)}
    modules = {name for name in rnnbench.__all__ if inspect.ismodule(getattr(rnnbench, name))}
    documented = re.findall(r":: rnnbench\.(\w+)", TEXTS["docs/api/rnnbench.md"])
    assert sorted(documented) == sorted(set(rnnbench.__all__) - errors - modules)
    own = re.findall(r":: rnnbench\.networks\.(\w+)", TEXTS["docs/api/networks.md"])
    assert sorted(own) == sorted(set(rnnbench.networks.__all__) - set(rnnbench.__all__))
    whole = re.findall(r"automodule:: rnnbench\.([\w.]+)", "".join(TEXTS.values()))
    assert set(whole) == {"check", "errors", "networks.convert", "reports"}


def test_the_readme_can_be_read_at_once():
    assert len(README.splitlines()) <= 120
