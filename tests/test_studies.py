"""Studies: what they say about networks follows from BPTT itself."""

import numpy as np
import pytest

import rnnbench
from rnnbench.errors import ArgumentError
from rnnbench.studies import gradient_flow


def of(spec: rnnbench.Spec, steps: int = 6, backend: str = "numpy_ref"):
    module = rnnbench.load_backend(backend)
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((steps, 2, spec.input_size)), rng.standard_normal((2, spec.hidden_size))
    return module, module.load(spec, rnnbench.init_params(spec, 0)), x, dy


@pytest.mark.parametrize("cell", ["elman", "lstm", "gru"])
def test_the_gradient_at_the_last_lag_is_that_of_the_initial_state(cell):
    spec = rnnbench.Spec(cell, 3, 4, num_layers=2, dtype="float64")
    module, net, x, dy = of(spec)
    norms = gradient_flow(module, net, x, dy)
    whole = np.zeros((6, 2, 4))
    whole[-1] = dy
    _, _, tape = net.record(x)
    wanted = net.backward(tape, whole).state
    for name, part in zip(spec.kind.states, wanted, strict=True):
        assert norms[name].shape == (7,)
        assert norms[name][-1] == pytest.approx(np.linalg.norm(part), rel=1e-12)
    assert norms["h"][0] == pytest.approx(np.linalg.norm(dy))


def test_gradients_vanish_and_explode_with_the_recurrent_weights():
    spec = rnnbench.Spec("elman", 3, 4, nonlinearity="relu", bias=False, dtype="float64")
    module, net, x, dy = of(spec, steps=30)
    params = net.params()
    for scale, grows in ((0.5, False), (2.0, True)):
        net.update(params | {"weight_hh_l0": scale * np.eye(4), "weight_ih_l0": np.abs(params["weight_ih_l0"])})
        norms = gradient_flow(module, net, np.abs(x), np.abs(dy))["h"]
        np.testing.assert_allclose(norms[1:] / norms[:-1], scale, rtol=1e-12)
        assert (norms[-1] > norms[0]) == grows


def test_a_network_of_two_directions_is_refused():
    spec = rnnbench.Spec("gru", 3, 4, bidirectional=True, dtype="float64")
    module, net, x, _ = of(spec)
    with pytest.raises(ArgumentError, match="the network is bidirectional; expected one direction"):
        gradient_flow(module, net, x, np.zeros((2, 8)))
