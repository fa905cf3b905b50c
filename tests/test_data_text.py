"""Promises of rnnbench.data.text: index sequences that stand for the text, and batches that continue each other."""

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnbench import ArgumentError
from rnnbench.data import StatefulBatches, Vocabulary, read_text, split

few = settings(max_examples=60, deadline=None)
texts = st.text(st.one_of(st.sampled_from("ab c,.-'\n(\"!1"), st.characters(exclude_categories=["Cs"])), min_size=1)


def test_the_sample_is_read_by_name_and_a_file_by_path(tmp_path):
    sample = read_text("shakespeare-sample")
    assert (len(sample), len(set(sample))) == (93_097, 63)
    (tmp_path / "mine.txt").write_bytes(b"\xef\xbb\xbf" + "Grüße\r\n".encode())
    assert read_text(tmp_path / "mine.txt") == "Grüße\r\n"


def test_shakespeare_loses_the_markdown_of_its_edition(monkeypatch):
    monkeypatch.setattr("rnnbench.data.text.read_member", lambda *_: b"# Title\n\n_Enter_ **A**  \n\\[now]\n")
    assert read_text("shakespeare") == "Title\n\nEnter A\n[now]\n"


def test_what_is_no_text_is_an_error_that_says_why(tmp_path):
    (tmp_path / "empty.txt").touch()
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    for name, message in {
        tmp_path / "empty.txt": "empty.txt is empty; expected at least one character",
        tmp_path / "latin.txt": "latin.txt is not text in UTF-8: unexpected end of data at byte 3",
        "hamlet": "'hamlet' is neither a file nor a data set; expected a path or one of shakespeare, shakespeare-sample",
        "co2": "data set 'co2' is of kind series; expected one of shakespeare, shakespeare-sample",
        tmp_path: "cannot read '.*': Is a directory",
    }.items():
        with pytest.raises(ArgumentError, match=message):
            read_text(name)
    with pytest.raises(ArgumentError, match=r"path is 'x\.whl' for the file 'mine\.txt'; expected none"):
        read_text("mine.txt", "x.whl")


@few
@given(texts.filter(lambda text: len(set(text)) > 1))
def test_characters_round_trip(text):
    vocabulary = Vocabulary.characters(text)
    ids, unknown = vocabulary.encode(text)
    assert (ids.dtype, unknown) == (np.int32, 0)
    assert vocabulary.decode(ids) == text
    assert list(vocabulary.symbols) == sorted(set(text))


@few
@given(st.lists(texts, min_size=1).map(lambda parts: "word " + " ".join(parts)))
def test_words_round_trip_but_for_spaces(text):
    vocabulary = Vocabulary.words(text)
    ids, unknown = vocabulary.encode(text)
    again, _ = vocabulary.encode(vocabulary.decode(ids))
    assert unknown == 0
    np.testing.assert_array_equal(again, ids)
    assert re.sub(r"\s", "", vocabulary.decode(ids)) == re.sub(r"\s", "", text)


def test_words_keep_marks_and_line_breaks_and_put_spaces_where_a_reader_expects_them():
    text = "O, step-dame (Exit)!\n\nI'll go--now: come;\nfear not."
    vocabulary = Vocabulary.words(text)
    ids, _ = vocabulary.encode(text)
    assert {",", "step-dame", "(", "!", "\n", "I'll", "--"} <= set(vocabulary.symbols)
    assert vocabulary.decode(ids) == "O, step-dame (Exit)!\n\nI'll go -- now: come;\nfear not."


def test_words_are_the_most_frequent_ones_and_the_rest_counts_as_unknown():
    vocabulary = Vocabulary.words("b b b c c a a d", most=4)
    assert vocabulary.symbols == ("<unk>", "b", "a", "c")
    ids, unknown = vocabulary.encode("b d new a")
    assert (ids.tolist(), unknown) == ([1, 0, 0, 2], 2)
    assert vocabulary.decode(ids) == "b <unk> <unk> a"


def test_characters_of_another_part_are_left_out_and_counted():
    ids, unknown = Vocabulary.characters("abc").encode("aXbYc~")
    assert (ids.tolist(), unknown) == ([0, 1, 2], 3)
    assert Vocabulary.characters("ab").encode("")[0].dtype == np.int32


@pytest.mark.parametrize("make", [Vocabulary.characters, Vocabulary.words])
def test_a_vocabulary_survives_json(make):
    vocabulary = make("To be, or not\nto be")
    assert Vocabulary.from_dict(json.loads(json.dumps(vocabulary.to_dict()))) == vocabulary


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Vocabulary.characters(""), "the text is empty; expected at least one character"),
        (lambda: Vocabulary.characters("aaa"), "vocabulary has symbols ('a',); expected at least 2, all different"),
        (lambda: Vocabulary.words(" \t "), "vocabulary has symbols ('<unk>',); expected at least 2, all different"),
        (lambda: Vocabulary.words("a b", most=1), "most is 1; expected an integer >= 2"),
        (lambda: Vocabulary("letters", ("a", "b")), "kind of vocabulary is 'letters'; expected characters or words"),
        (lambda: Vocabulary("words", ("a", "b")), "symbol 0 of a vocabulary of words is 'a'; expected <unk>"),
        (lambda: Vocabulary.from_dict({"kind": "words"}), "stored vocabulary has kind; expected kind and symbols"),
        (lambda: Vocabulary.characters("ab").decode([0, 2]), "ids range from 0 to 2; expected 0 to 1"),
        (lambda: Vocabulary.characters("ab").decode([-1]), "ids range from -1 to -1; expected 0 to 1"),
        (
            lambda: StatefulBatches(np.arange(12), 3, 4),
            "the text has 12 symbols; expected at least 13 for batch 3 x steps 4 + 1",
        ),
        (lambda: StatefulBatches(np.zeros((2, 9)), 1, 2), "ids have shape (2, 9); expected (N,)"),
        (lambda: StatefulBatches(np.arange(9), 0, 4), "batch is 0; expected an integer >= 1"),
        (lambda: StatefulBatches(np.arange(9), 1, 2.5), "steps is 2.5; expected an integer >= 1"),
        (lambda: split("abc", (0.5, 0.6)), "parts are (0.5, 0.6); expected positive numbers that sum to 1"),
        (lambda: split("abc"), "parts (0.9, 0.05, 0.05) of 3 elements have sizes [3, 0, 0]; expected at least 1 each"),
    ],
)
def test_bad_arguments_say_what_is_allowed(call, message):
    with pytest.raises(ArgumentError, match=f"^{re.escape(message)}$"):
        call()


@few
@given(st.integers(3, 500), st.lists(st.integers(1, 9), min_size=1, max_size=3))
def test_parts_are_the_whole_in_order(n, weights):
    parts = [weight / sum(weights) for weight in weights]
    try:
        found = split(np.arange(n), parts)
    except ArgumentError:
        assert min(parts) * n < 2
        return
    np.testing.assert_array_equal(np.concatenate(found), np.arange(n))
    assert all(abs(len(part) - share * n) <= 1 for part, share in zip(found, parts, strict=True))


@few
@given(st.integers(2, 300), st.integers(1, 7), st.integers(1, 9))
def test_batches_continue_each_other_overlap_nowhere_and_leave_out_only_the_end(n, batch, steps):
    if n < batch * steps + 1:
        return
    batches = StatefulBatches(np.arange(n), batch, steps)
    inputs, targets = (np.concatenate(part) for part in zip(*batches, strict=True))
    assert inputs.shape == (len(batches) * steps, batch)
    assert inputs.dtype == targets.dtype == np.int32
    assert (np.diff(inputs, axis=0) == 1).all()  # each lane goes on from batch to batch
    np.testing.assert_array_equal(targets, inputs + 1)
    np.testing.assert_array_equal(np.sort(inputs, axis=None), np.arange(n - 1 - batches.unused))
    assert batches.unused < batch * steps


def test_a_batch_is_found_by_number_and_owns_no_part_of_the_text():
    ids = np.arange(25, dtype=np.int32)
    batches = StatefulBatches(ids, 2, 4)
    assert len(batches) == 3
    np.testing.assert_array_equal(batches[-1][0], batches[2][0])
    np.testing.assert_array_equal(batches[1][0], [[4, 16], [5, 17], [6, 18], [7, 19]])
    for part in (*batches[1], *StatefulBatches(ids, 1, 4)[0]):
        assert part.flags.c_contiguous
        part[:] = -1
    np.testing.assert_array_equal(ids, np.arange(25))
    with pytest.raises(IndexError, match="batch 3; expected 0 to 2"):
        batches[3]
