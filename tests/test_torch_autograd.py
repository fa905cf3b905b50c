"""What networks of the PyTorch backends promise about tapes, graphs and their callers' own autograd."""

import weakref

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the PyTorch backends need torch")

from helpers.torch_problems import (  # noqa: E402  # only where torch is
    Problem,
    assert_same,
    each_backend,
    each_pair,
    name_of,
    reference_tape,
    spec_of,
)

from rnnbench.impls import numpy_ref  # noqa: E402  # only where torch is


@each_pair
def test_tapes_keep_the_weights_they_were_recorded_with(backend, cell):
    before, after = Problem(spec_of(cell), seed=0), Problem(spec_of(cell), seed=9)
    net = backend.load(before.spec, before.params)
    _, _, tape = net.record(*before.inputs(backend))
    net.update(after.params)
    assert_same(before.gradients(backend, net, tape), before.gradients(numpy_ref, *reference_tape(before)), "float64")
    assert_same(after.forward(backend, net) | after.bptt(backend, net), after.run(numpy_ref), "float64")
    for name, value in net.params().items():
        np.testing.assert_array_equal(value, after.params[name])


@each_pair
def test_several_tapes_are_alive_at_once(backend, cell):
    first, second = Problem(spec_of(cell)), Problem(spec_of(cell), steps=4)
    net = backend.load(first.spec, first.params)
    tapes = [net.record(*problem.inputs(backend))[2] for problem in (first, second)]
    for problem, tape in zip((first, second), tapes, strict=True):
        assert_same(problem.gradients(backend, net, tape), problem.gradients(numpy_ref, *reference_tape(problem)), "float64")


@each_backend
def test_a_used_tape_has_released_its_graph(backend):
    problem = Problem(spec_of("gru"))
    net = backend.load(problem.spec, problem.params)
    _, _, tape = net.record(*problem.inputs(backend))
    graph = weakref.ref(tape.content.y)
    problem.gradients(backend, net, tape)
    assert graph() is None


@each_pair
def test_results_in_numpy_share_no_memory_with_the_graph(backend, cell):
    problem = Problem(spec_of(cell, dtype="float32"))
    net = backend.load(problem.spec, problem.params)
    expected = problem.bptt(backend, net)
    y, final, tape = net.record(*problem.inputs(backend))
    for tensor in (y, *final):
        backend.to_numpy(tensor)[...] = 7
    got = problem.gradients(backend, net, tape)
    for name, value in got.items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


@each_pair
def test_changing_results_in_place_is_harmless_or_an_error(backend, cell):
    problem = Problem(spec_of(cell, dtype="float32"))
    net = backend.load(problem.spec, problem.params)
    expected = problem.bptt(backend, net)
    y, final, tape = net.record(*problem.inputs(backend))
    for tensor in (y, *final):
        tensor.fill_(7)
    try:
        got = problem.gradients(backend, net, tape)
    except RuntimeError as error:
        if "modified by an inplace operation" not in str(error):
            raise
        return
    for name, value in got.items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


@each_pair
def test_gradients_are_plain_tensors_of_their_own(backend, cell):
    problem = Problem(spec_of(cell, num_layers=2, dtype="float32"))
    net = backend.load(problem.spec, problem.params)
    _, _, tape = net.record(*problem.inputs(backend))
    dy, dstate = backend.asarray(problem.dy), tuple(map(backend.asarray, problem.dstate))
    grads = net.backward(tape, dy, dstate)
    tensors = [*grads.params.values(), grads.x, *grads.state]
    assert not any(tensor.requires_grad for tensor in tensors)
    memory = [tensor.untyped_storage().data_ptr() for tensor in (*tensors, dy, *dstate)]
    assert len(set(memory)) == len(memory)


@each_pair
def test_results_serve_the_callers_own_autograd(backend, cell):
    problem = Problem(spec_of(cell))
    net = backend.load(problem.spec, problem.params)
    y, final = net.forward(*problem.inputs(backend))
    y_recorded, final_recorded, _ = net.record(*problem.inputs(backend))
    for tensor in (y, *final, y_recorded, *final_recorded):
        assert not tensor.requires_grad
        scale = torch.ones_like(tensor, requires_grad=True)
        (scale * tensor).sum().backward()  # an inference tensor is refused here
        assert torch.equal(scale.grad, tensor)


@each_backend
def test_only_record_builds_a_graph(backend, monkeypatch):
    problem = Problem(spec_of("lstm"))
    net = backend.load(problem.spec, problem.params)
    run, seen = net._run, []

    def watched(x, state):
        seen.append(torch.is_grad_enabled())
        return run(x, state)

    monkeypatch.setattr(net, "_run", watched)
    net.forward(*problem.inputs(backend))
    net.record(*problem.inputs(backend))
    assert seen == [False, True]


@each_pair
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode], ids=name_of)
def test_the_callers_gradient_mode_changes_nothing(backend, cell, mode):
    problem = Problem(spec_of(cell))
    with mode():
        got = problem.run(backend)
    for name, value in problem.run(backend).items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)


@each_backend
def test_load_leaves_torchs_random_numbers_alone(backend):
    problem = Problem(spec_of("lstm"))
    before = torch.random.get_rng_state()
    backend.load(problem.spec, problem.params)
    assert torch.equal(torch.random.get_rng_state(), before)
