"""Train three models with torch.nn and with drop-ins, alternately in one process, and compare losses and times.

    python tools/drop_ins/drop_ins.py --threads 1 --rounds 30

words: two layers of LSTM with dropout, an output layer that shares the embedding's weights, a carried state, and plain gradient
descent through ``data``.  tags: two bidirectional layers of LSTM over packed sentences, Adam.  speech: two convolutions, two
bidirectional layers of GRU, the CTC loss, AdamW.  Both copies of a model start from the same parameters, and random numbers,
and see the same batches; the losses of 20 steps must agree to five digits.  A round is one step of each, and the order
alternates.  Printed are the fastest steps and the median of the rounds' ratios; above 1 the drop-ins are faster.

With --calls: one call of an LSTM with T 1, B 1, I = H = 64 instead, by numba_cpu itself, by a drop-in and by torch.nn; forward
without gradients, and forward and backward.  Printed is the fastest round of 20 calls.
"""

import argparse
import copy
import statistics
import sys
import time
import timeit
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import rnnbench
import rnnbench.torch

WORDS, WINDOW, TAGS, SOUNDS, FRAMES = 2000, 35, 17, 30, 160
STEPS_COMPARED = 20

Step = Callable[[], float]


class Words(nn.Module):
    def __init__(self, size: int = 200) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.2)
        self.embedding = nn.Embedding(WORDS, size)
        self.rnn = nn.LSTM(size, size, 2, dropout=0.2)
        self.output = nn.Linear(size, WORDS)
        self.output.weight = self.embedding.weight
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        y, state = self.rnn(self.dropout(self.embedding(x)), state)
        return self.output(self.dropout(y)), state


def word_steps(model: Words, batch: int) -> Step:
    symbols = torch.randint(WORDS, (20 * WINDOW + 1, batch), generator=seeded())
    state = tuple(torch.zeros(2, batch, model.rnn.hidden_size) for _ in range(2))
    first = 0

    def step() -> float:
        nonlocal state, first
        model.zero_grad()
        y, state = model(symbols[first : first + WINDOW], tuple(part.detach() for part in state))
        loss = nn.functional.cross_entropy(y.flatten(0, 1), symbols[first + 1 : first + WINDOW + 1].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        for parameter in model.parameters():
            parameter.data.add_(parameter.grad, alpha=-5)
        first = (first + WINDOW) % (20 * WINDOW)
        return loss.item()

    return step


class Tags(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 100)
        self.rnn = nn.LSTM(100, 128, 2, batch_first=True, bidirectional=True, dropout=0.3)
        self.output = nn.Linear(256, TAGS)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(self.embedding(x), lengths, batch_first=True, enforce_sorted=False)
        return self.output(pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0])


def tag_steps(model: Tags, batch: int) -> Step:
    optimiser, batches = torch.optim.Adam(model.parameters(), 1e-3), sentences(batch)

    def step() -> float:
        x, lengths, tags = next(batches)
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(model(x, lengths).flatten(0, 1), tags.flatten(), ignore_index=-1)
        loss.backward()
        optimiser.step()
        return loss.item()

    return step


def sentences(batch: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Sentences of 5 to 40 words, and their tags, -1 after the last."""
    random = seeded()
    while True:
        lengths = torch.randint(5, 41, (batch,), generator=random)
        shape = batch, int(lengths.max())
        x, tags = torch.randint(WORDS, shape, generator=random), torch.randint(TAGS, shape, generator=random)
        yield x, lengths, tags.masked_fill(torch.arange(shape[1]) >= lengths[:, None], -1)


class Speech(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        first, second = nn.Conv1d(40, 96, 5, stride=2, padding=2), nn.Conv1d(96, 96, 3, padding=1)
        self.front = nn.Sequential(first, nn.BatchNorm1d(96), nn.ReLU(), second, nn.ReLU())
        self.rnn = nn.GRU(96, 128, 2, batch_first=True, bidirectional=True)
        self.output = nn.Linear(256, SOUNDS)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.rnn(self.front(x).transpose(1, 2))[0]).log_softmax(-1)


def speech_steps(model: Speech, batch: int) -> Step:
    optimiser, random = torch.optim.AdamW(model.parameters(), 1e-3), seeded()

    def step() -> float:
        x = torch.randn(batch, 40, FRAMES, generator=random)
        sounds = torch.randint(1, SOUNDS, (batch, 12), generator=random)
        optimiser.zero_grad()
        y = model(x)
        loss = nn.functional.ctc_loss(y.transpose(0, 1), sounds, torch.full((batch,), y.shape[1]), torch.full((batch,), 12))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5)
        optimiser.step()
        return loss.item()

    return step


MODELS = {"words": (Words, word_steps), "tags": (Tags, tag_steps), "speech": (Speech, speech_steps)}


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 32])
    parser.add_argument("--calls", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.calls:
        compare_calls(options.threads, options.rounds)
        return
    agree = [compare(name, batch, options.rounds) for name in options.models for batch in options.batches]
    sys.exit(0 if all(agree) else 1)


def compare_calls(threads: int, rounds: int) -> None:
    own = nn.LSTM(64, 64)
    drop_in = rnnbench.torch.convert(copy.deepcopy(own))
    params = {name: value.numpy() for name, value in own.state_dict().items()}
    net = rnnbench.load_backend("numba_cpu").load(rnnbench.Spec("lstm", 64, 64), params, threads=threads)
    x = torch.randn(1, 1, 64)
    array = x.numpy()

    def trained(module: nn.Module) -> None:
        y, _ = module(x)
        y.backward(torch.ones_like(y))

    def trained_net() -> None:
        y, _, tape = net.record(array)
        net.backward(tape, y)

    with torch.no_grad():
        forward = [lambda: net.forward(array), lambda: drop_in(x), lambda: own(x)]
        print_fastest("forward", forward, rounds)
    print_fastest("forward and backward", [trained_net, lambda: trained(drop_in), lambda: trained(own)], rounds)


def print_fastest(what: str, calls: list[Callable[[], object]], rounds: int) -> None:
    times = [[timeit.timeit(call, number=20) for call in calls] for _ in range(rounds + 1)][1:]  # the first compiles
    numba, drop_in, own = (5e4 * min(part) for part in zip(*times, strict=True))
    print(f"{what:<21} numba_cpu {numba:6.1f}  drop-in {drop_in:6.1f}  torch.nn {own:6.1f} us", flush=True)


def compare(name: str, batch: int, rounds: int) -> bool:
    """Train both, print a line, and return whether the losses agree."""
    kind, steps_of = MODELS[name]
    torch.manual_seed(0)
    own = kind()
    drop_in = rnnbench.torch.convert(copy.deepcopy(own))
    steps, losses = [steps_of(model, batch) for model in (own, drop_in)], []
    for step in steps:
        torch.manual_seed(1)  # of dropout
        losses.append([step() for _ in range(STEPS_COMPARED)])
    apart = max(abs(one - other) / abs(one) for one, other in zip(*losses, strict=True))
    times: list[list[float]] = [[], []]
    for k in range(rounds):
        for place in (0, 1) if k % 2 else (1, 0):
            begun = time.perf_counter()
            steps[place]()
            times[place].append(time.perf_counter() - begun)
    ratio = statistics.median(one / other for one, other in zip(*times, strict=True))
    shown = " ".join(f"{1000 * min(part):8.2f}" for part in times)
    print(
        f"{name:<7} B {batch:<3} torch.nn, drop-in {shown} ms  ratio {ratio:5.2f}  losses {losses[0][0]:.4f} to "
        f"{losses[0][-1]:.4f}, {losses[1][-1]:.4f}; at most {apart:.0e} apart  {drop_in.rnn.runs_on}",
        flush=True,
    )
    return apart < 1e-5


if __name__ == "__main__":
    main()
