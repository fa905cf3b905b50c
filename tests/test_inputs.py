"""Inputs: the same seed gives the same values, each array from its own stream, and text is read as it stands.  About 1 s."""

import hashlib
import re
from importlib import resources

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnbench import ArgumentError
from rnnbench.suite.case import Case
from rnnbench.suite.inputs import SAMPLE, SOURCES, batches, encoded, make_input, read_text

CASE = Case("lstm", "step", T=7, B=3, I=5, H=4, layers=2, bidirectional=True)


def changed(**fields) -> Case:
    return msgspec.structs.replace(CASE, **fields)


def arrays(inputs) -> list[np.ndarray]:
    return [inputs.x, inputs.dy, *inputs.state, *inputs.dstate]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_shapes_and_dtypes_are_the_networks(source, dtype):
    inputs = make_input(changed(dtype=dtype), source)
    assert [a.shape for a in arrays(inputs)] == [(7, 3, 5), (7, 3, 8), *4 * [(4, 3, 4)]]
    assert {str(a.dtype) for a in arrays(inputs)} == {dtype}
    assert all(a.flags.c_contiguous for a in arrays(inputs))


def test_jordan_gets_states_and_cotangents_as_wide_as_its_output():
    inputs = make_input(Case("jordan", "step", T=7, B=3, I=5, H=4, output_size=2))
    assert [a.shape for a in arrays(inputs)] == [(7, 3, 5), (7, 3, 2), (1, 3, 2), (1, 3, 2)]


@pytest.mark.parametrize("source", SOURCES)
def test_a_seed_gives_the_same_values_again_and_in_every_dtype(source):
    single, again, double = (
        make_input(CASE, source, 1),
        make_input(CASE, source, 1),
        make_input(changed(dtype="float64"), source, 1),
    )
    for a, b, c in zip(arrays(single), arrays(again), arrays(double), strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c.astype("float32"))


@pytest.mark.parametrize("source", SOURCES)
def test_another_seed_gives_other_values_everywhere(source):
    for a, b in zip(arrays(make_input(CASE, source, 1)), arrays(make_input(CASE, source, 2)), strict=True):
        assert not np.isin(a, b).any()


@pytest.mark.parametrize("source", SOURCES)
def test_no_array_depends_on_the_size_of_another(source):
    small, other_state = make_input(CASE, source), make_input(changed(layers=1, bidirectional=False, H=9), source)
    np.testing.assert_array_equal(small.x, other_state.x)
    wide = make_input(changed(I=50), source)
    for a, b in zip(arrays(small)[1:], arrays(wide)[1:], strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_arrays_share_no_values():
    values = np.concatenate([a.ravel() for a in arrays(make_input(changed(dtype="float64"), "noise"))])
    assert len(np.unique(values)) == len(values)


@pytest.mark.parametrize("source", SOURCES)
def test_every_array_is_of_unit_scale(source):
    inputs = make_input(Case("lstm", "step", T=64, B=64, I=256, H=64, dtype="float64"), source)
    for array in arrays(inputs):
        # the least here is a state of 4,096 values: its mean and deviation stray from 0 and 1 by 1/64 and less, one
        # standard error; text draws 63 x 256 values, but its frequent characters weigh more: about 1 in 12 each.
        # Five standard errors, with 12 x 256 effective values in the text
        assert abs(array.mean()) < 5 / np.sqrt(12 * 256)
        assert abs(array.std() - 1) < 5 / np.sqrt(12 * 256)


def test_text_is_one_table_row_per_character(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("abca", "utf-8")
    x = make_input(Case("gru", "step", T=6, B=2, I=4, H=3), "text", text_file=file).x
    a, b, c = x[0, 0], x[1, 0], x[2, 0]
    np.testing.assert_array_equal(x[:, 0], [a, b, c, a, a, b])  # from offset 0, and on at the start
    np.testing.assert_array_equal(x[:, 1], [c, a, a, b, c, a])  # from offset 2
    assert len({tuple(row) for row in (a, b, c)}) == 3


def test_a_longer_sequence_goes_on_where_the_shorter_one_ends():
    np.testing.assert_array_equal(make_input(CASE).x, make_input(changed(T=20)).x[:7])


@given(st.text(min_size=1, max_size=40), st.integers(1, 90), st.integers(1, 50))
def test_batches_are_stretches_of_the_text_that_wraps_around(text, steps, batch):
    symbols, stream = encoded(text)
    table = sorted(set(text))
    assert symbols == len(table)
    assert [table[i] for i in stream] == list(text)
    drawn = batches(stream, steps, batch)
    assert drawn.shape == (steps, batch)
    for row in range(batch):
        offset = row * len(text) // batch
        wrapped = (text * (2 + steps // len(text)))[offset : offset + steps]
        assert [table[i] for i in drawn[:, row]] == list(wrapped)


def test_a_single_character_is_a_text(tmp_path):
    file = tmp_path / "one.txt"
    file.write_text("é", "utf-8")
    x = make_input(CASE, text_file=file).x
    assert (x == x[0, 0]).all()


def test_line_ends_are_read_as_they_stand(tmp_path):
    file = tmp_path / "dos.txt"
    file.write_bytes(b"a\r\nb")
    assert read_text(file) == "a\r\nb"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; expected a text of at least one character"),
        (b"abc\xff", "is not text in UTF-8: invalid start byte at byte 3"),
        (None, "No such file or directory"),
    ],
)
def test_a_bad_text_file_is_refused_by_name(tmp_path, content, message):
    file = tmp_path / "bad.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ArgumentError, match=f"bad.txt.*{re.escape(message)}"):
        make_input(CASE, text_file=file)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": "speech"}, "source is 'speech'; expected one of text, noise"),
        ({"seed": -1}, "seed is -1; expected an integer >= 0"),
        ({"seed": 1.5}, "seed is 1.5; expected an integer >= 0"),
        ({"seed": True}, "seed is True; expected an integer >= 0"),
        ({"source": "noise", "text_file": "a.txt"}, "text_file is 'a.txt' for source 'noise'; expected none"),
    ],
)
def test_bad_arguments_say_what_is_allowed(arguments, message):
    with pytest.raises(ArgumentError, match=f"^{re.escape(message)}$"):
        make_input(CASE, **arguments)


def test_the_sample_is_the_text_that_its_origin_describes():
    folder = resources.files("rnnbench.data")
    content, origin = (folder / SAMPLE).read_bytes(), (folder / "ORIGIN.txt").read_text("utf-8")
    assert hashlib.sha256(content).hexdigest() == "575bfb7d8055d2105c8f82250f2ece4b1b3eda5cf98ed5b3f5006cf33f03f4db"
    assert hashlib.sha256(content).hexdigest() in origin
    text = read_text()
    assert f"{len(text):,} characters, {len(set(text))} distinct" in origin
    assert text.startswith("A Midsummer Night's Dream\n\nACT I\n")
    assert "public domain" in origin
