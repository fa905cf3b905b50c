"""What drop-ins for torch.nn's modules compute, and that they fit into PyTorch's autograd.  Takes 10 s with a filled cache."""

import threading

import pytest

torch = pytest.importorskip("torch", reason="the drop-ins are for PyTorch")

from helpers.drop_ins import BATCH, HIDDEN, INPUT, STEPS, arguments, loss, outcome, pair, tensors  # noqa: E402
from torch.autograd import gradcheck, gradgradcheck  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

import rnnbench.torch  # noqa: E402

OPTIONS = {
    "lstm": ("LSTM", {}),
    "gru": ("GRU", {"bidirectional": True, "batch_first": True, "bias": False}),
    "tanh": ("RNN", {"num_layers": 2, "dropout": 0.5}),
    "relu": ("RNN", {"nonlinearity": "relu", "batch_first": True}),
    "deep": ("LSTM", {"num_layers": 2, "bidirectional": True, "dropout": 0.3, "proj_size": 2}),
}
each = pytest.mark.parametrize("case", OPTIONS)


def made(case):
    name, options = OPTIONS[case]
    return pair(name, **options)


def assert_close(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@each
@pytest.mark.parametrize("kind", ["padded", "packed", "unbatched"])
def test_results_and_gradients_are_those_of_torch(case, kind):
    own, drop_in = made(case)
    assert_close(outcome(drop_in, kind), outcome(own, kind))
    assert drop_in.runs_on == "numba_cpu"


def test_packed_results_are_packed_as_torch_packs_them():
    own, drop_in = pair("LSTM")
    given, hx, _ = arguments(own, "packed")
    for found, expected in zip(drop_in(given, hx)[0][1:], own(given, hx)[0][1:], strict=True):
        assert torch.equal(found, expected)
    assert_close(tensors(drop_in(given)), tensors(own(given)))


def test_float32_results_are_those_of_torch():
    own, drop_in = pair("LSTM", torch.float32)
    assert_close(outcome(drop_in), outcome(own))
    assert drop_in.runs_on == "numba_cpu"


@pytest.mark.parametrize("case", ["lstm", "gru", "relu"])
def test_gradients_and_their_gradients(case):
    _, drop_in = made(case)
    names = [name for name, _ in drop_in.named_parameters()]
    torch.manual_seed(2)
    x = torch.randn(2, 2, INPUT, dtype=torch.float64, requires_grad=True)
    _, _, (_, *state) = arguments(drop_in)
    state = [part[:, :2].detach().requires_grad_() for part in state]

    def call(x, *others):
        hx, weights = others[: len(state)], others[len(state) :]
        return tuple(tensors(torch.func.functional_call(drop_in, dict(zip(names, weights, strict=True)), (x, *packed(hx)))))

    def packed(hx):
        return (hx,) if drop_in.mode == "LSTM" else hx

    inputs = (x, *state, *drop_in.parameters())
    assert gradcheck(call, inputs, fast_mode=True)
    assert gradgradcheck(call, inputs, fast_mode=True)
    assert drop_in.runs_on == "numba_cpu"


def test_gradients_of_gradients_in_float32_are_those_in_float64():
    found = []
    for dtype in (torch.float32, torch.float64):
        _, drop_in = pair("LSTM", dtype)
        drop_in.load_state_dict(pair("LSTM")[1].state_dict())
        given, hx, leaves = arguments(drop_in)
        with torch.no_grad():
            for leaf, values in zip(leaves, arguments(pair("LSTM")[1])[2], strict=True):
                leaf.copy_(values)
        first = torch.autograd.grad(loss(drop_in(given, hx)), leaves, create_graph=True)
        found.append(torch.autograd.grad(sum((part**2).sum() for part in first), [*leaves, *drop_in.parameters()]))
    assert_close(found[0], [part.float() for part in found[1]])
    assert torch.backends.mkldnn.is_available() == torch._C._get_mkldnn_enabled()


def test_a_module_is_used_twice_in_a_graph_and_the_graph_twice():
    results = []
    for module in pair("GRU"):
        given, hx, leaves = arguments(module)
        first, state = module(given, hx)
        second, _ = module(2 * given, state)
        value = (first * second).sum()
        wanted = [*leaves, *module.parameters()]
        results.append([torch.autograd.grad(value, wanted, retain_graph=True) for _ in range(3)])
    for found, expected in zip(results[1], results[0], strict=True):
        assert_close(found, expected)


def test_each_result_has_a_gradient_of_its_own():
    for index in range(3):
        found = []
        for module in pair("LSTM"):
            given, hx, leaves = arguments(module)
            part = tensors(module(given, hx))[index]
            found.append(torch.autograd.grad(part.sum(), [*leaves, *module.parameters()]))
        assert_close(found[1], found[0])


def test_only_what_wants_a_gradient_has_one():
    _, drop_in = pair("LSTM")
    given, hx, leaves = arguments(drop_in)
    drop_in.requires_grad_(False)
    y, _ = drop_in(given.detach(), (hx[0].detach(), hx[1]))
    y.sum().backward()
    assert [leaf.grad is None for leaf in leaves] == [True, True, False]
    assert all(parameter.grad is None for parameter in drop_in.parameters())
    assert not drop_in(given.detach())[0].requires_grad


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_call_has_the_same_gradients(reentrant):
    found = []
    for module in pair("GRU"):
        given, hx, leaves = arguments(module)
        y, _ = checkpoint(module, given, hx, use_reentrant=reentrant)
        found.append(torch.autograd.grad((y**2).sum(), leaves) if not reentrant else _backward(y, leaves))
    assert_close(found[1], found[0])


def _backward(y, leaves):
    (y**2).sum().backward()
    return [leaf.grad for leaf in leaves]


def test_nothing_but_saved_tensors_is_kept_under_their_hooks():
    _, drop_in = pair("LSTM")
    given, hx, leaves = arguments(drop_in)
    expected = torch.autograd.grad(loss(drop_in(given, hx)), leaves)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor.clone(), lambda tensor: tensor):
        y, final = drop_in(given, hx)
    assert y.grad_fn.recorded is None
    assert_close(torch.autograd.grad(loss((y, final)), leaves), expected)


@pytest.mark.parametrize("changed", ["x", "state", "weight"])
def test_backward_refuses_what_was_changed_since(changed):
    _, drop_in = pair("LSTM")
    given, hx, _ = arguments(drop_in)
    given, hx = given * 1, (hx[0] * 1, hx[1])
    y, _ = drop_in(given, hx)
    with torch.no_grad():
        {"x": given, "state": hx[0], "weight": drop_in.weight_hh_l0}[changed].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_threads_with_weights_of_their_own_do_not_disturb_each_other():
    own, drop_in = pair("LSTM")
    given, hx, _ = arguments(own)
    weights = [{name: seed * value for name, value in own.state_dict().items()} for seed in (0.5, 2.0)]
    with torch.no_grad():
        expected = [torch.func.functional_call(own, each_weights, (given, hx))[0] for each_weights in weights]
    wrong = []

    def call(place):
        with torch.no_grad():
            for _ in range(100):
                y, _ = torch.func.functional_call(modules[place], weights[place], (given, hx))
                wrong.extend([] if torch.allclose(y, expected[place]) else [place])

    other = rnnbench.torch.LSTM(INPUT, HIDDEN, dtype=torch.float64)
    vars(other)["_layers_by_dtype"] = {torch.float64: drop_in._layers(torch.float64)}  # functional_call is not for threads
    modules = [drop_in, other]
    threads = [threading.Thread(target=call, args=(place,)) for place in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_inference_takes_and_returns_inference_tensors():
    with torch.inference_mode():
        own, drop_in = pair("LSTM")
        given, hx, _ = arguments(own)
        found, expected = drop_in(given, hx), own(given, hx)
        assert_close(tensors(found), tensors(expected))
        assert found[0].is_inference()
    assert drop_in.runs_on == "numba_cpu"


@pytest.mark.parametrize(("name", "dtypes"), [("LSTM", torch.bfloat16), ("GRU", torch.float32), ("RNN", torch.bfloat16)])
def test_autocast_computes_in_bfloat16_and_returns_what_torch_returns(name, dtypes):
    own, drop_in = pair(name, torch.float32)
    given, hx, _ = arguments(own)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = drop_in(given, hx), own(given, hx)
    assert drop_in.runs_on == "numba_cpu"
    assert {part.dtype for part in tensors(found)} == {part.dtype for part in tensors(expected)} == {dtypes}
    for one, other in zip(tensors(found), tensors(expected), strict=True):
        torch.testing.assert_close(one, other, rtol=2**-6, atol=2**-5)  # a few roundings of numbers near 1 to 8 bits
    loss(found).backward()
    assert drop_in.weight_hh_l0.grad.dtype is torch.float32


def test_strides_do_not_matter():
    own, drop_in = pair("LSTM")
    wide = torch.randn(BATCH, 2 * STEPS, 2 * INPUT, dtype=torch.float64)
    given = wide.transpose(0, 1)[::2, :, ::2].detach().requires_grad_()
    found = [torch.autograd.grad((module(given)[0] ** 2).sum().expand(2).sum(), given)[0] for module in (own, drop_in)]
    assert_close(found[1:], found[:1])


def test_the_threads_are_those_of_torch():
    _, drop_in = pair("LSTM")
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            drop_in(arguments(drop_in)[0])
            assert drop_in._layers(torch.float64)[0].args[0]._loaded.threads == threads
    finally:
        torch.set_num_threads(before)
