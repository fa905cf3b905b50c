"""Promises of rnnbench.data.sequences: labelled sequences as they are in the file, folds and batches that are fair."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnbench import ArgumentError, MissingLibrary
from rnnbench.data import padded, read_sequences, shuffled_batches, stratified

few = settings(max_examples=60, deadline=None)
HEAD = "# remark\n@problemName X\n@dimensions 2\n@equalLength false\n@classLabel true no Yes\n@data\n"


def ts(folder, text):
    (folder / "x.ts").write_text(text, "utf-8")
    return folder / "x.ts"


@pytest.mark.parametrize(("part", "number", "lengths"), [("train", 36, (10, 26)), ("test", 27, (9, 23))])
def test_the_sample_holds_every_speaker_equally_often(part, number, lengths):
    vowels = read_sequences("vowels-sample", part)
    assert (len(vowels), vowels.channels, vowels.classes) == (number, 12, tuple("123456789"))
    assert np.bincount(vowels.labels).tolist() == [number // 9] * 9
    assert vowels.labels.dtype == np.int32
    found = [len(array) for array in vowels.arrays]
    assert (min(found), max(found)) == lengths
    if part == "train":
        assert vowels.arrays[0][:2, :2].tolist() == [[1.860936, -0.207383], [1.891651, -0.193249]]


def test_digits_are_eight_rows_of_eight_split_in_order():
    try:
        train, test = (read_sequences("digits", part) for part in ("train", "test"))
    except MissingLibrary as error:
        pytest.skip(str(error))
    assert (len(train), len(test), train.classes) == (1437, 360, tuple("0123456789"))
    assert {array.shape for array in train.arrays + test.arrays} == {(8, 8)}
    assert train.arrays[0][0].tolist() == [0, 0, 5, 13, 9, 1, 0, 0]
    assert train.labels[:10].tolist() == list(range(10))


def test_a_file_keeps_lengths_missing_values_and_the_order_of_classes(tmp_path):
    found = read_sequences(ts(tmp_path, HEAD + "1,2,3:4,5,6:Yes\n\n7:?:no\n"))
    np.testing.assert_array_equal(found.arrays[0], [[1, 4], [2, 5], [3, 6]])
    np.testing.assert_array_equal(found.arrays[1], [[7, np.nan]])
    assert (found.classes, found.labels.tolist()) == (("no", "Yes"), [1, 0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + "1,2:3,4:no\n1,x:3,4:no\n", "x.ts, row 8, channel 1: 'x' is no number"),
        (HEAD + "1,2:3,inf:no\n", "x.ts, row 7, channel 2: 'inf' is not finite; expected a number, or ? where it is missing"),
        (HEAD + "1,2:3:no\n", "x.ts, row 7, channel 2: 1 value; expected 2"),
        (HEAD + "1,2:no\n", "x.ts, row 7: 1 channel; expected 2"),
        (HEAD + "1,2:3,4:maybe\n", "x.ts, row 7: class is 'maybe'; expected one of no, Yes"),
        (HEAD, "x.ts has no sequences; expected rows after @data"),
        ("", "x.ts has no sequences; expected rows after @data"),
        ("1,2:no\n", "x.ts, row 1: '1,2:no' before @data; expected a line that begins with @"),
        ("@classLabel true a\n@data\n1:a\n1:1:a\n", "x.ts, row 4: 2 channels; expected 1"),
        ("@classLabel true a\n@data\na\n", "x.ts, row 3: 0 channels; expected at least 1"),
        ("@data\n1:a\n", "x.ts, row 1: no classes before @data; expected @classLabel true and their names"),
        ("@classLabel false\n", "x.ts, row 1: '@classLabel false' names no classes; expected @classLabel true and their names"),
        ("@dimensions two\n", "x.ts, row 1: dimensions are 'two'; expected an integer >= 1"),
        ("@timeStamps true\n", "x.ts, row 1: time stamps are not supported; expected @timeStamps false"),
        ("@targetLabel true\n", "x.ts, row 1: numbers as targets are not supported; expected @classLabel true"),
    ],
)
def test_errors_of_a_file_name_the_file_and_the_row(tmp_path, text, message):
    with pytest.raises(ArgumentError, match=f"^{re.escape(message)}$"):
        read_sequences(ts(tmp_path, text))


def test_names_and_parts_that_do_not_exist_name_those_there_are(tmp_path):
    with pytest.raises(ArgumentError, match=r"expected a path or one of japanese-vowels, digits, vowels-sample$"):
        read_sequences("vowels")
    with pytest.raises(ArgumentError, match=r"^part is 'all'; expected one of train, test$"):
        read_sequences("vowels-sample", "all")
    with pytest.raises(ArgumentError, match=r"; expected none$"):
        read_sequences(tmp_path / "x.ts", path="x.whl")


def test_padding_puts_time_first_and_zeros_after_each_end():
    vowels = read_sequences("vowels-sample")
    x, lengths = padded(vowels)
    assert (x.shape, x.dtype, lengths.dtype) == ((26, 36, 12), np.float64, np.int64)
    for position, array in enumerate(vowels.arrays):
        assert lengths[position] == len(array)
        np.testing.assert_array_equal(x[: len(array), position], array)
        assert not x[len(array) :, position].any()


def test_padding_refuses_what_fits_no_array():
    for sequences, message in (
        ([], "there are no sequences; expected at least one"),
        ([np.zeros((2, 3)), np.zeros((2, 2))], "sequence 1 has shape (2, 2); expected (T, 3) with T >= 1"),
        ([np.zeros((0, 3))], "sequence 0 has shape (0, 3); expected (T, 3) with T >= 1"),
    ):
        with pytest.raises(ArgumentError, match=f"^{re.escape(message)}$"):
            padded(sequences)


@few
@given(st.lists(st.integers(0, 3), min_size=8, max_size=60), st.integers(2, 5), st.integers(0, 9))
def test_folds_test_each_index_once_and_share_every_class(labels, folds, seed):
    labels = np.array(labels)
    sizes = np.unique(labels, return_counts=True)[1]
    if sizes.min() < folds:
        with pytest.raises(ArgumentError, match=rf"class \d has \d members?; expected at least {folds}, one for each fold"):
            stratified(labels, folds, seed)
        return
    found = list(stratified(labels, folds, seed))
    assert sorted(np.concatenate([test for _, test in found])) == list(range(len(labels)))
    for train, test in found:
        np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(len(labels)))
        for label in set(labels.tolist()):
            share = (labels == label).sum() / folds
            assert abs((labels[test] == label).sum() - share) < 1
        assert abs(len(test) - len(labels) / folds) < 1


def test_folds_follow_the_seed_alone():
    labels = np.arange(40) % 4
    first, again, other = (np.concatenate([test for _, test in stratified(labels, 4, seed)]) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@few
@given(st.integers(1, 50), st.integers(1, 60), st.integers(0, 5), st.integers(0, 5))
def test_batches_hold_each_index_once_and_follow_seed_and_epoch_alone(n, batch, seed, epoch):
    first = shuffled_batches(n, batch, seed, epoch)
    np.random.default_rng(0).random(3)
    again = shuffled_batches(n, batch, seed, epoch)
    assert [part.tolist() for part in first] == [part.tolist() for part in again]
    assert sorted(np.concatenate(first)) == list(range(n))
    assert [len(part) for part in first] == [batch] * (n // batch) + [n % batch] * (n % batch > 0)


def test_another_epoch_and_another_seed_give_another_order():
    orders = {tuple(np.concatenate(shuffled_batches(30, 7, seed, epoch))) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9
    with pytest.raises(ArgumentError, match=r"^epoch is -1; expected an integer >= 0$"):
        shuffled_batches(3, 1, 0, -1)
