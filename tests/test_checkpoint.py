"""Promises of rnnbench.training.checkpoint: all comes back, no pickle, and the old file stays until the new one is whole."""

import resource
import signal
import zipfile
from pathlib import Path

import numpy as np
import pytest

from rnnbench import StoreError
from rnnbench.results import disk
from rnnbench.training import Checkpoint, read_checkpoint, write_checkpoint

PARAMS = {"rnn.weight_ih_l0": np.arange(6, dtype=np.float32).reshape(2, 3), "output.bias": np.array([np.nan, -0.0])}
GOOD = Checkpoint(
    7, PARAMS, {"steps": np.array(7)}, (np.ones((1, 2)), np.zeros(3)), 0.25, 2, 1.5, {"config": {"task": "lm"}, "é": ["\n"]}
)


@pytest.fixture
def path(tmp_path) -> Path:
    write_checkpoint(tmp_path / "last.npz", GOOD)
    return tmp_path / "last.npz"


def message(path: Path) -> str:
    with pytest.raises(StoreError) as caught:
        read_checkpoint(path)
    return str(caught.value)


def assert_same(found: Checkpoint, expected: Checkpoint) -> None:
    for name in ("params", "optimiser"):
        got, wanted = getattr(found, name), getattr(expected, name)
        assert got.keys() == wanted.keys()
        for key, value in wanted.items():
            assert (got[key].dtype, got[key].shape, got[key].tobytes()) == (value.dtype, value.shape, value.tobytes())
    assert [part.tobytes() for part in found.state] == [part.tobytes() for part in expected.state]
    for name in ("step", "best", "waited", "seconds", "facts"):
        assert getattr(found, name) == getattr(expected, name)


def test_everything_comes_back_bit_for_bit_from_the_file_or_its_folder(path):
    assert_same(read_checkpoint(path), GOOD)
    assert_same(read_checkpoint(path.parent), GOOD)
    first = Checkpoint(0, PARAMS, {})
    write_checkpoint(path, first)
    assert_same(read_checkpoint(path), first)


def test_a_checkpoint_needs_no_pickle(path):
    with np.load(path, allow_pickle=False) as stored:
        assert all(stored[name].dtype != object for name in stored.files)


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_torn_file_is_a_clear_error(path, kept):
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    assert message(path).startswith(f"{path} is no checkpoint, or broken: ")


def test_a_flipped_bit_is_an_error_or_changes_nothing(path):
    content = path.read_bytes()
    for place in range(0, len(content), 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        try:
            found = read_checkpoint(path)
        except StoreError as error:
            assert str(path) in str(error)  # noqa: PT017  # which of both it is depends on the place
        else:
            assert_same(found, GOOD)


def test_a_shape_that_was_changed_and_an_array_that_was_lost_are_noticed(path):
    """NumPy reads both without complaint."""
    content = path.read_bytes()
    assert content.count(b"(2, 3)") == 1
    path.write_bytes(content.replace(b"(2, 3)", b"(2, 2)"))
    assert message(path) == f"{path} is no checkpoint, or broken: params/rnn.weight_ih_l0.npy is damaged"
    path.write_bytes(content)
    with np.load(path) as stored:
        kept = {name: stored[name] for name in stored.files if name != "params/output.bias"}
    np.savez(path, **kept)
    assert message(path) == f"{path} is no checkpoint of rnnbench: it has 4 arrays; expected 5"


def test_files_that_are_no_checkpoints_are_named_so(tmp_path):
    path = tmp_path / "x.npz"
    assert message(path) == f"no checkpoint {path}; expected a run's folder, or one of its files last.npz and best.npz"
    path.write_text("no archive")
    assert message(path).startswith(f"{path} is no checkpoint, or broken: ")
    np.savez(path, a=np.zeros(3))
    assert message(path) == f"{path} is no checkpoint of rnnbench: it has no array 'head'"
    np.savez(path, head=np.array('{"format": "other"}'))
    assert message(path).startswith(f"{path} is no checkpoint of rnnbench: its format is 'other'; expected ")
    np.savez(path, head=np.array([{"a": 1}], dtype=object))
    assert "pickle" in message(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("head.npy", b"\x93NUMPY")
    assert str(path) in message(path)


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="this system does not limit the size of files")
def test_a_full_disk_keeps_the_old_checkpoint(path):
    larger = Checkpoint(8, {"weight": np.ones(10**5)}, {})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10**5, limits[1]))
        with pytest.raises(StoreError, match=f"^cannot write {path}: File too large$"):
            write_checkpoint(path, larger)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_same(read_checkpoint(path), GOOD)
    assert list(path.parent.iterdir()) == [path]


def test_the_old_checkpoint_stays_until_the_new_one_is_on_disk(path, monkeypatch):
    seen = []
    synced = disk.os.fsync
    monkeypatch.setattr(disk.os, "fsync", lambda file: (seen.append(read_checkpoint(path).step), synced(file)))
    write_checkpoint(path, Checkpoint(8, PARAMS, {}))
    assert seen[0] == 7
    assert read_checkpoint(path).step == 8
