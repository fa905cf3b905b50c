"""A case has one key in every process, a label without what is usual, and a network."""

import os
import subprocess
import sys
from dataclasses import replace

import msgspec
from helpers.stored_rows import CASE, WINDOWED

from rnnbench.suite.case import Case


def test_equal_cases_have_one_key_and_every_field_changes_it():
    changes = {
        "cell": "gru",
        "phase": "forward",
        "T": 8,
        "B": 4,
        "I": 5,
        "H": 6,
        "layers": 2,
        "bidirectional": True,
        "nonlinearity": "relu",
        "bias": False,
        "output_size": 6,
        "window": 3,
        "stride": 3,
        "dtype": "float64",
        "threads": 2,
        "lengths": "uniform",
        "projection_size": 3,
    }
    assert list(changes) == list(Case.__struct_fields__)
    others = [msgspec.structs.replace(CASE, **{name: value}) for name, value in changes.items()]
    keys = [case.key() for case in [CASE, *others]]
    assert len(set(keys)) == len(keys)
    labels = [case.label() for case in [CASE, *others]]
    assert len(set(labels)) == len(labels)
    assert Case("lstm", "step", 7, 3, 4, 5).key() == CASE.key()


def test_a_key_is_the_same_in_every_process():
    code = f"from rnnbench.suite.case import Case; print({WINDOWED!r}.key())"
    for hash_seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == WINDOWED.key()
    assert msgspec.json.decode(msgspec.json.encode(WINDOWED), type=Case).key() == WINDOWED.key()


def test_a_label_leaves_out_what_has_its_usual_value():
    assert CASE.label() == "lstm step T7 B3 I4 H5"
    assert WINDOWED.label() == "jordan tbptt T7 B3 I4 H5 output_size6 window4 stride2 dtypefloat64 threads2"
    assert Case("gru", "forward", 1, 1, 1, 1, bidirectional=True).label() == "gru forward T1 B1 I1 H1 bidirectional"


def test_a_case_gives_its_network():
    spec = WINDOWED.spec()
    assert (spec.cell, spec.input_size, spec.hidden_size, spec.output_size, spec.dtype) == ("jordan", 4, 5, 6, "float64")
    whole = Case("elman", "step", 7, 3, 4, 5, 2, True, "relu", False).spec()
    assert (whole.num_layers, whole.bidirectional, whole.nonlinearity, whole.bias) == (2, True, "relu", False)
    assert replace(whole, num_layers=1) != whole
