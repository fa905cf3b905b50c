"""Models: what they compute equals torch.nn, autograd and torch.optim; arguments that do not fit are refused."""

import math
from dataclasses import replace

import numpy as np
import pytest

import rnnbench
from rnnbench.errors import ArgumentError, SpecError
from rnnbench.models import SGD, Adam, AdamW, Model, ModelSpec, init_model_params, load_model

WORDS = ModelSpec(rnnbench.Spec("lstm", 6, 8, num_layers=2, dtype="float64"), 9, vocabulary=11)
NUMBERS = ModelSpec(rnnbench.Spec("gru", 3, 8, dtype="float64"), 2, loss="mse")


def loaded(spec: ModelSpec = WORDS, backend: str = "numpy_ref") -> Model:
    return load_model(spec, init_model_params(spec, 0), backend)


def words(rng: np.random.Generator, steps: int = 7, batch: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    shape = (steps, batch)
    return rng.integers(0, 11, shape), rng.integers(0, 9, shape), (rng.random(shape) < 0.6).astype("float64")


def torch_model(spec: ModelSpec):
    torch = pytest.importorskip("torch", reason="the witness is PyTorch")
    kinds = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}

    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            rnn = spec.rnn
            if spec.vocabulary:
                self.embedding = torch.nn.Embedding(spec.vocabulary, rnn.input_size)
            self.rnn = kinds[rnn.cell](rnn.input_size, rnn.hidden_size, rnn.num_layers)
            self.output = torch.nn.Linear(rnn.features, spec.outputs)

        def forward(self, inputs):
            return self.output(self.rnn(self.embedding(inputs) if spec.vocabulary else inputs)[0])

    module = Module().double()
    module.load_state_dict({name: torch.from_numpy(value) for name, value in init_model_params(spec, 0).items()})
    return torch, module


def torch_loss(torch, spec: ModelSpec, module, inputs, targets, mask):
    z, targets, mask = module(torch.from_numpy(inputs)), torch.from_numpy(targets), torch.from_numpy(mask)
    if spec.loss == "mse":
        return (mask * (z - targets) ** 2).sum() / mask.sum()
    losses = torch.nn.functional.cross_entropy(z.flatten(0, 1), targets.flatten(), reduction="none")
    return (losses * mask.flatten()).sum() / mask.sum()


def clip_norm_exactly(torch, parameters, limit: float) -> None:
    """torch's own divides by the norm plus 1e-6."""
    norm = torch.linalg.vector_norm(torch.cat([parameter.grad.flatten() for parameter in parameters]))
    for parameter in parameters:
        parameter.grad *= min(1.0, limit / norm.item())


@pytest.mark.parametrize(
    ("make", "optimiser", "options", "clip_norm"),
    [
        (lambda t, p: t.optim.Adam(p, 0.01), Adam, {"rate": 0.01}, None),
        (lambda t, p: t.optim.Adam(p, 0.01), Adam, {"rate": 0.01, "clip_norm": 0.05}, 0.05),
        (lambda t, p: t.optim.AdamW(p, 0.01, weight_decay=0.1), AdamW, {"rate": 0.01, "weight_decay": 0.1}, None),
        (lambda t, p: t.optim.SGD(p, 0.1), SGD, {"rate": 0.1}, None),
        (lambda t, p: t.optim.SGD(p, 0.1, momentum=0.9), SGD, {"rate": 0.1, "momentum": 0.9}, None),
        (
            lambda t, p: t.optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
            SGD,
            {"rate": 0.1, "momentum": 0.9, "nesterov": True},
            None,
        ),
    ],
    ids=["adam", "adam clipped", "adamw", "sgd", "momentum", "nesterov"],
)
@pytest.mark.parametrize("spec", [WORDS, NUMBERS], ids=["words", "numbers"])
def test_training_equals_that_of_a_module_of_torch(spec, make, optimiser, options, clip_norm):
    torch, module = torch_model(spec)
    theirs, model = make(torch, module.parameters()), loaded(spec)
    ours, rng = optimiser(model, **options), np.random.default_rng(1)
    for _ in range(5):
        inputs, targets, mask = words(rng)
        if spec.loss == "mse":
            inputs, targets, mask = rng.standard_normal((7, 4, 3)), rng.standard_normal((7, 4, 2)), rng.random((7, 4, 2))
        loss = torch_loss(torch, spec, module, inputs, targets, mask)
        theirs.zero_grad()
        loss.backward()
        if clip_norm:
            clip_norm_exactly(torch, list(module.parameters()), clip_norm)
        theirs.step()
        found = model.gradients(inputs, targets, mask)
        ours.step(found.gradients)
        assert found.loss == pytest.approx(loss.item(), rel=1e-9)
    for name, parameter in module.named_parameters():
        np.testing.assert_allclose(model.params()[name], parameter.detach().numpy(), rtol=0, atol=1e-9)


def test_a_mean_of_gradients_over_two_batches_is_the_gradient_of_both_at_once():
    model, rng = loaded(), np.random.default_rng(0)
    inputs, targets, _ = words(rng, batch=6)
    whole = model.gradients_to_numpy(model.gradients(inputs, targets).gradients)
    halves = [model.gradients(inputs[:, part], targets[:, part]).gradients for part in (slice(0, 3), slice(3, 6))]
    both = model.gradients_to_numpy(model.add(*halves))
    for name, value in whole.items():
        np.testing.assert_allclose(both[name] / 2, value, rtol=0, atol=1e-15)


@pytest.mark.parametrize("backend", ["numpy_ref", "numba_cpu"])
@pytest.mark.parametrize("spec", [WORDS, NUMBERS], ids=["words", "numbers"])
def test_an_evaluation_has_the_loss_of_a_training_pass_to_the_bit_and_computes_no_gradient(spec, backend, monkeypatch):
    model, rng = loaded(spec, backend), np.random.default_rng(0)
    inputs, targets, mask = words(rng)
    if spec.loss == "mse":
        inputs, targets, mask = rng.standard_normal((7, 4, 3)), rng.standard_normal((7, 4, 2)), rng.random((7, 4, 2))
    wanted = model.gradients(inputs, targets, mask).loss
    for name in ("cross_entropy", "squared_errors"):
        monkeypatch.setattr(model.parts, name, None)
    assert model.evaluate(inputs, targets, mask).loss == wanted


def test_a_state_carries_on_where_the_sequence_was_cut():
    model, rng = loaded(), np.random.default_rng(0)
    inputs, targets, _ = words(rng, steps=8)
    first = model.evaluate(inputs[:3], targets[:3])
    second = model.evaluate(inputs[3:], targets[3:], state=first.state)
    whole = model.evaluate(inputs, targets)
    assert (3 * first.loss + 5 * second.loss) / 8 == pytest.approx(whole.loss, rel=1e-14)


def test_an_optimiser_goes_on_from_its_state_to_the_bit():
    rng = np.random.default_rng(0)
    batches = [words(rng) for _ in range(4)]

    def steps(model, optimiser, some):
        for inputs, targets, mask in some:
            optimiser.step(model.gradients(inputs, targets, mask).gradients)

    model = loaded()
    steps(model, Adam(model), batches)
    first = loaded()
    before = Adam(first)
    steps(first, before, batches[:2])
    second = load_model(WORDS, first.params(), "numpy_ref")
    after = Adam(second)
    after.restore(before.state())
    steps(second, after, batches[2:])
    for name, value in model.params().items():
        np.testing.assert_array_equal(second.params()[name], value)


def test_huge_logits_have_a_finite_loss():
    model = loaded()
    params = model.params()
    model.update(params | {"output.bias": np.linspace(-1e4, 1e4, 9)})
    inputs, _, _ = words(np.random.default_rng(0))
    found = model.gradients(inputs, np.zeros_like(inputs))
    assert 1.9e4 < found.loss < 2.1e4
    assert all(np.isfinite(value).all() for value in model.gradients_to_numpy(found.gradients).values())


def test_an_ignored_target_may_be_anything():
    model, rng = loaded(NUMBERS), np.random.default_rng(0)
    x, targets, mask = rng.standard_normal((5, 2, 3)), rng.standard_normal((5, 2, 2)), np.ones((5, 2))
    mask[3] = 0
    wanted = model.gradients(x, targets, mask).loss
    targets[3] = math.nan
    assert model.gradients(x, targets, mask).loss == wanted


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outputs": 0}, "outputs is 0; expected an integer from 1 to 16777216"),
        ({"vocabulary": 1}, "vocabulary is 1; expected an integer from 2 to 16777216"),
        ({"loss": "hinge"}, "loss is 'hinge'; expected one of cross_entropy, mse"),
        ({"activation": "tanh"}, "activation is 'tanh'; expected softmax for cross_entropy"),
        ({"dropout": 1.0}, "dropout is 1.0; expected a number from 0 to below 1"),
        (
            {"rnn": replace(WORDS.rnn, dtype="bfloat16")},
            "the dtype of rnn is 'bfloat16'; expected one of float32, float64 in a model",
        ),
        ({"rnn": replace(WORDS.rnn, num_layers=1), "dropout": 0.5}, "dropout is 0.5; expected 0: it acts between layers"),
    ],
)
def test_a_model_that_cannot_be_is_refused(options, message):
    with pytest.raises(SpecError) as caught:
        replace(WORDS, **({"activation": None} | options))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": np.zeros((7, 4))}, "inputs is an array of float64; expected a numpy.ndarray of integers"),
        ({"inputs": np.full((7, 4), 11)}, "inputs has 11; expected integers from 0 to 10"),
        ({"targets": np.full((7, 4), -1)}, "targets has -1; expected integers from 0 to 8"),
        ({"targets": np.zeros((6, 4), int)}, "targets has shape (6, 4); expected (7, 4)"),
        ({"mask": np.zeros((7, 4))}, "mask is 0 everywhere; expected at least one target that counts"),
        ({"mask": np.ones((4, 7))}, "mask has shape (4, 7); expected (7, 4)"),
        ({"mask": -np.ones((7, 4))}, "mask has a negative or infinite number"),
        ({"window": 0}, "window is 0; expected an integer >= 1"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change, message):
    arguments = {"inputs": np.zeros((7, 4), int), "targets": np.zeros((7, 4), int)} | change
    with pytest.raises(ArgumentError) as caught:
        loaded().gradients(**arguments)
    assert str(caught.value).startswith(message)


def test_dropout_needs_a_key_and_equal_keys_give_equal_losses_on_all_backends():
    spec, rng = replace(WORDS, dropout=0.5), np.random.default_rng(0)
    inputs, targets, _ = words(rng)
    with pytest.raises(ArgumentError, match="key is None and dropout"):
        loaded(spec).gradients(inputs, targets)
    first, again, other = (loaded(spec).gradients(inputs, targets, key=key).loss for key in ((1, 2), (1, 2), (1, 3)))
    assert first == again != other
    assert loaded(spec, "numba_cpu").gradients(inputs, targets, key=(1, 2)).loss == pytest.approx(first, rel=1e-12)
    assert loaded(spec).evaluate(inputs, targets).loss == loaded().evaluate(inputs, targets).loss


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: Adam(m, 0), "rate is 0; expected a finite number above 0"),
        (lambda m: SGD(m, momentum=1), "momentum is 1; expected a number from 0 to below 1"),
        (lambda m: SGD(m, nesterov=True), "nesterov is True and momentum 0; expected a momentum above 0"),
        (lambda m: Adam(m, clip_norm=1, clip_value=1), "clip_norm is 1 and clip_value 1; expected at most one of them"),
        (lambda m: Adam(m).restore({}), "the optimiser's state has other arrays"),
    ],
)
def test_an_optimiser_that_cannot_be_is_refused(make, message):
    with pytest.raises(ArgumentError) as caught:
        make(loaded())
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("backend", ["numpy_ref", "numba_cpu"])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_lengths_change_nothing_that_a_mask_counts_and_padding_is_not_read(backend, dropout):
    spec = replace(NUMBERS, rnn=replace(NUMBERS.rnn, num_layers=2), loss="cross_entropy", activation=None, dropout=dropout)
    rng, lengths = np.random.default_rng(0), np.array([8, 2, 5, 1])
    x, targets, last = rng.standard_normal((8, 4, 3)), rng.integers(0, 2, (8, 4)), np.zeros((8, 4))
    last[lengths - 1, np.arange(4)] = 1
    model, options = loaded(spec, backend), {"window": 4, "key": (1,)}
    padded = x.copy()
    padded[np.arange(8)[:, None] >= lengths] = np.nan
    plain, found = (
        model.gradients(x, targets, last, **options),
        model.gradients(padded, targets, last, lengths=lengths, **options),
    )
    assert found.loss == pytest.approx(plain.loss, abs=1e-12)
    for name, value in model.gradients_to_numpy(found.gradients).items():
        np.testing.assert_allclose(value, model.gradients_to_numpy(plain.gradients)[name], atol=1e-12)
    evaluated = model.evaluate(padded, targets, last, lengths=lengths).loss
    assert evaluated == pytest.approx(model.evaluate(x, targets, last).loss, abs=1e-12)
    outputs, wanted = model.forward(padded, lengths=lengths)[0], model.forward(x)[0]
    np.testing.assert_allclose(outputs[last > 0], wanted[last > 0], atol=1e-12)


def test_dropout_refuses_windows_of_which_the_last_would_overlap():
    spec = replace(NUMBERS, rnn=replace(NUMBERS.rnn, num_layers=2), dropout=0.5)
    x = np.zeros((7, 4, 3))
    with pytest.raises(ArgumentError, match=r"window is 4 and T 7 with dropout 0.5; expected a T that windows divide"):
        loaded(spec).gradients(x, np.zeros((7, 4, 2)), window=4, key=(1,))
