"""Networks whose weights other libraries can hold, and what it means that converted weights are the same."""

from itertools import product

from rnnbench import Spec

KERAS = ("elman", "lstm", "gru", "gru_reset_before")
ONNX = (*KERAS, "lstm_peephole")


def specs(cells, dtypes=("float32", "float64"), layers=(1, 3)):
    return [
        Spec(cell, 3, 2, num_layers=depth, bidirectional=both, bias=bias, dtype=dtype)
        for cell, depth, both, bias, dtype in product(cells, layers, (False, True), (True, False), dtypes)
    ]


def named(spec):
    parts = (spec.cell, spec.nonlinearity, f"L{spec.num_layers}", f"D{spec.directions}", f"bias={spec.bias:d}", spec.dtype)
    return "-".join(parts)


def assert_same_bits(got, expected):
    assert len(got) == len(expected)
    for g, e in zip(got, expected, strict=True):
        assert (g.dtype, g.shape, g.tobytes()) == (e.dtype, e.shape, e.tobytes())
        assert g.flags.c_contiguous
        assert g.flags.writeable


def assert_same_params(got, expected):
    assert list(got) == list(expected)
    assert_same_bits(list(got.values()), list(expected.values()))
