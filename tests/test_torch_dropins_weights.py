"""Drop-ins run with the weights that their modules have at the time of the call.  Takes 5 s with a filled cache."""

import pytest

torch = pytest.importorskip("torch", reason="the drop-ins are for PyTorch")

from helpers.drop_ins import HIDDEN, INPUT, arguments, pair  # noqa: E402

import rnnbench.torch  # noqa: E402

CHANGES = {
    "in place": lambda module, new: module.weight_hh_l0.copy_(new),
    "through data": lambda module, new: module.weight_hh_l0.data.copy_(new),
    "one element through data": lambda module, _: module.weight_hh_l0.data[-1, -1].fill_(9),
    "data": lambda module, new: setattr(module.weight_hh_l0, "data", new),
    "data transposed": lambda module, _: setattr(module.weight_hh_l0, "data", module.weight_hh_l0.data.t()),
    "parameter": lambda module, new: setattr(module, "weight_hh_l0", torch.nn.Parameter(new)),
    "state_dict": lambda module, new: module.load_state_dict({**module.state_dict(), "weight_hh_l0": new}),
    "assigned": lambda module, new: module.load_state_dict({**module.state_dict(), "weight_hh_l0": new}, assign=True),
}


@pytest.mark.parametrize("change", CHANGES)
def test_calls_have_the_weights_of_their_time(change):
    modules = pair("RNN")
    found = []
    for module in modules:
        given, hx, _ = arguments(module)
        with torch.no_grad():
            before = module(given, hx)[0]
            CHANGES[change](module, torch.linspace(-1, 1, HIDDEN**2, dtype=torch.float64).reshape(HIDDEN, HIDDEN))
            found.append(module(given, hx)[0])
        assert not torch.equal(before, found[-1])
    torch.testing.assert_close(found[1], found[0])


LARGE = 400
"""A hidden size whose weights are too large to be compared as a whole in a call of one step."""


@pytest.mark.parametrize("change", [change for change in CHANGES if change != "one element through data"])
def test_single_steps_of_large_layers_have_the_weights_of_their_time(change):
    own, drop_in = (module(INPUT, LARGE, dtype=torch.float64) for module in (torch.nn.RNN, rnnbench.torch.RNN))
    drop_in.load_state_dict(own.state_dict())
    x, h = torch.ones(1, 1, INPUT, dtype=torch.float64), torch.ones(1, 1, LARGE, dtype=torch.float64)
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(drop_in(x, h)[0], own(x, h)[0])
        for module in (own, drop_in):
            CHANGES[change](module, torch.linspace(-1, 1, LARGE**2, dtype=torch.float64).reshape(LARGE, LARGE))
        for _ in range(2):
            torch.testing.assert_close(drop_in(x, h)[0], own(x, h)[0])


def test_a_single_element_that_changes_unknown_to_torch_is_found_by_a_longer_call_or_by_many():
    module = rnnbench.torch.RNN(INPUT, LARGE, dtype=torch.float64)
    x = torch.ones(16, 1, INPUT, dtype=torch.float64)
    with torch.no_grad():
        before = module(x)[0]
        module.weight_hh_l0.data[7, 11] += 1
        assert not torch.equal(module(x)[0], before)
        before = module(x[:1], torch.ones(1, 1, LARGE, dtype=torch.float64))[0]
        module.weight_hh_l0.data[11, 7] += 1
        assert any(
            not torch.equal(module(x[:1], torch.ones(1, 1, LARGE, dtype=torch.float64))[0], before)
            for _ in range(LARGE**2 // 256 + 1)
        )


def test_a_weight_at_the_address_of_another_is_another():
    module = rnnbench.torch.RNN(INPUT, LARGE, dtype=torch.float64)
    x, h = torch.ones(1, 1, INPUT, dtype=torch.float64), torch.ones(1, 1, LARGE, dtype=torch.float64)
    weights = dict(module.named_parameters())
    with torch.no_grad():
        for place in range(5):
            weight = torch.zeros(LARGE, LARGE, dtype=torch.float64)
            weight[place, place] = 1  # freed after the call, so the next one may lie there
            y, _ = torch.func.functional_call(module, {**weights, "weight_hh_l0": weight}, (x, h))
            own = torch.tanh(x @ module.weight_ih_l0.T + h @ weight.T + module.bias_ih_l0 + module.bias_hh_l0)
            torch.testing.assert_close(y, own)
            del weight
