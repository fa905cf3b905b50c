"""Drop-ins inside torch.compile and torch.export, as operators.  Takes 15 s with a filled cache."""

import io

import pytest

torch = pytest.importorskip("torch", reason="the drop-ins are for PyTorch")

from helpers.drop_ins import BATCH, HIDDEN, INPUT, STEPS, arguments, outcome, pair, tensors  # noqa: E402
from torch import _dynamo  # noqa: E402
from torch.export import Dim, export  # noqa: E402

import rnnbench.torch  # noqa: E402
from rnnbench.torch import operators  # noqa: E402

pytestmark = pytest.mark.filterwarnings(
    "ignore:.torch.jit.script. is deprecated:DeprecationWarning",
    "ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning",
)


@pytest.fixture
def dynamo():
    """torch.compile's front end, which takes torch.nn's recurrent modules only where ``allow_rnn`` says so."""
    _dynamo.reset()
    with _dynamo.config.patch(allow_rnn=True):
        yield _dynamo
    _dynamo.reset()


@pytest.mark.parametrize(
    ("cell", "gates", "parts", "directions"), [("lstm", 4, 2, 2), ("gru", 3, 1, 1), ("elman", 1, 1, 1)], ids=lambda value: value
)
def test_operators_are_what_torch_expects_of_them(cell, gates, parts, directions):
    torch.manual_seed(0)
    options = {"dtype": torch.float64, "requires_grad": True}
    state = [torch.randn(directions, BATCH, HIDDEN, **options) for _ in range(parts)]
    shapes = ((gates * HIDDEN, INPUT), (gates * HIDDEN, HIDDEN), (gates * HIDDEN,), (gates * HIDDEN,)) * directions
    weights = [torch.randn(*shape, **options) for shape in shapes]
    x = torch.randn(STEPS, BATCH, INPUT, **options)
    given = (x, state, weights, cell, "tanh", directions == 2, True)
    assert set(torch.library.opcheck(operators.layer, given).values()) == {"SUCCESS"}
    cotangents = [torch.randn_like(part) for part in operators.layer(*given)]
    with torch.no_grad():
        back = (x, state, weights, cotangents, *given[3:])
        assert set(torch.library.opcheck(operators.layer_backward, back).values()) == {"SUCCESS"}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("LSTM", {"num_layers": 2, "bidirectional": True, "batch_first": True, "proj_size": 2, "dropout": 0.5}),
        ("GRU", {"bias": False}),
        ("RNN", {"nonlinearity": "relu"}),
    ],
)
def test_a_compiled_module_is_one_graph_with_torchs_results(dynamo, name, options):
    own, drop_in = pair(name, **options)
    graphs = []

    def keep(graph, _):
        graphs.append([node.target for node in graph.graph.nodes])
        return graph.forward

    compiled = torch.compile(lambda *given: drop_in(*given), backend=keep, fullgraph=True)
    given, hx, leaves = arguments(own)
    torch.manual_seed(9)
    found = tensors(compiled(given, hx))
    found += torch.autograd.grad(
        sum((part**power).sum() for power, part in enumerate(found, 2)), [*leaves, *drop_in.parameters()]
    )
    for one, other in zip(found, outcome(own), strict=True):
        torch.testing.assert_close(one, other)
    assert graphs[0].count(torch.ops.rnnbench.layer.default) == drop_in.num_layers


def test_autograd_of_a_graph_is_compiled_too(dynamo):
    own, drop_in = pair("LSTM")
    given, _, leaves = arguments(own)
    grads = []
    for module in (own, torch.compile(drop_in, backend="aot_eager", fullgraph=True)):
        y, _ = module(given)
        grads.append(torch.autograd.grad((y**2).sum(), [leaves[0], *module.parameters()]))
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other)


def test_by_default_torch_compile_runs_the_module_between_its_graphs():
    _dynamo.reset()
    _, drop_in = pair("LSTM")
    graphs = []

    def keep(graph, _):
        graphs.append(graph)
        return graph.forward

    def step(given):
        y = torch.nn.functional.relu(given)
        y, _ = drop_in(y)
        value = (y**2).sum()
        value.backward()
        return value

    given, _, _ = arguments(drop_in)
    expected = step(given)
    first = [parameter.grad.clone() for parameter in drop_in.parameters()]
    assert torch.equal(torch.compile(step, backend=keep)(given), expected)
    assert drop_in.runs_on == "numba_cpu"
    for parameter, grad in zip(drop_in.parameters(), first, strict=True):
        torch.testing.assert_close(parameter.grad, 2 * grad)
    assert len(graphs) <= 2  # none of them inside the module


@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_model_takes_other_lengths_and_survives_a_file(strict):
    own, drop_in = pair("GRU", num_layers=2)
    given = arguments(own)[0].detach()
    sizes = {0: Dim("T", min=2, max=100), 1: Dim("B", min=2, max=100)}
    program = export(drop_in, (given,), dynamic_shapes=(sizes,), strict=strict)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    for other in (program.module(), torch.export.load(file).module()):
        for x in (given, given[:3, :2]):
            torch.testing.assert_close(tensors(other(x)), tensors(own(x)))


@pytest.mark.filterwarnings("ignore:The tensor attributes .*_flat_weights:UserWarning")  # of torch.nn's own forward
@pytest.mark.parametrize("given", [torch.ones(STEPS, BATCH, INPUT).half(), torch.ones(STEPS, BATCH, INPUT, device="meta")])
def test_a_graph_of_what_numba_cpu_has_not_is_torchs(given):
    module = rnnbench.torch.GRU(INPUT, HIDDEN, dtype=given.dtype, device=given.device)
    targets = {str(node.target) for node in export(module, (given,)).graph.nodes}
    assert not any("rnnbench" in target for target in targets)


def test_an_empty_batch_goes_through_a_graph():
    _, drop_in = pair("LSTM")
    given, (h, c), _ = arguments(drop_in)
    weights = list(drop_in.parameters())
    given, h, c = (part[:, :0].detach().requires_grad_() for part in (given, h, c))
    y, *_ = operators.layer(given, [h, c], weights, "lstm", "tanh", False, True)
    y.sum().backward()
    assert y.shape == (STEPS, 0, HIDDEN)
    assert not weights[0].grad.any()
