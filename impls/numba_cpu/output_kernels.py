"""The output layer of a model with its loss and gradients, for a share of the rows, block by block of rows that stay in cache.

``compile_parts`` binds the free names below to one loss or activation.  Sizes: N rows of y in this share, F features, O
outputs; F' and O' are padded to whole vectors, because products write whole vectors.

    y (N, F)  dy (N, F)  dweight (O, F')  targets and weights (N,) for cross_entropy, (N, O) for squared errors

Results of the output layer, and then their cotangents, exist for one block alone: z (block, at least O').
"""

from collections.abc import Callable
from typing import Any

from numba import njit
from numba.extending import register_jitable

from rnnbench.impls.numba_cpu.kernels import add_rows

cotangents: Callable[..., Any]
loss_of: Callable[..., Any]
activated: Callable[..., None]
activate: Callable[..., Any]
slope: Callable[..., Any]
squared_error: Callable[..., Any]
exp: Callable[..., Any]
log: Callable[..., Any]
plus_row: Callable[..., None]
added: Callable[..., None]
plus_row_transposed: Callable[..., None]
added_transposed: Callable[..., None]
pack: Callable[..., None]
ZERO: Any
CHUNK: int


def gradients(y, targets, weights, dy, dweight, loss, layer, work):
    """Fill dy, dweight, work.dbias and loss (1,) for all rows of this share.

    ``layer`` (``parts.PackedLayer``): the weight, packed for both directions, and the bias.  ``work``: ``parts.Work``.
    """
    total, features = y.shape
    outputs, columns, width, block = dweight.shape[0], layer.bias.size, dweight.shape[1], work.z.shape[0]
    count = (total + block - 1) // block
    for u in range(columns):
        work.dbias[u] = ZERO
    loss[0] = 0
    row = 0
    for index in range(count):
        rows = (total - row + count - index - 1) // (count - index)  # blocks of nearly equal height
        last = row + rows
        z, dx = work.z[:rows], work.dy[:rows]
        plus_row(y[row:last], layer.forward, layer.bias, z[:, :columns], features, work.room)
        loss[0] += cotangents(z, columns, outputs, targets[row:last], weights[row:last], work.terms)
        pack(y[row:last], features, work.packed)
        for first in range(0, outputs, CHUNK):  # columns whose cotangents stay in the second cache for both products
            terms = min(CHUNK, outputs - first)
            dz, back, out = z[:, first : first + terms], layer.backward[first * width :], dweight[first : first + terms]
            if first == 0:
                plus_row(dz, back, work.nothing, dx, terms, work.room)
            else:
                added(dz, back, dx, terms, work.room)
            if index == 0:
                plus_row_transposed(z, first, work.packed, work.nothing, out, rows, work.room)
            else:
                added_transposed(z, first, work.packed, out, rows, work.room)
        add_rows(z, columns, work.dbias)
        for i in range(rows):
            for u in range(features):
                dy[row + i, u] = dx[i, u]
        row = last


def losses(y, targets, weights, loss, layer, work):
    """Fill loss (1,) as ``gradients`` does, from the same blocks of rows, for a ``layer`` that is packed forward alone."""
    total, features = y.shape
    columns, block = layer.bias.size, work.z.shape[0]
    count = (total + block - 1) // block
    loss[0] = 0
    row = 0
    for index in range(count):
        rows = (total - row + count - index - 1) // (count - index)
        z = work.z[:rows]
        plus_row(y[row : row + rows], layer.forward, layer.bias, z[:, :columns], features, work.room)
        loss[0] += loss_of(z, columns, targets[row : row + rows], weights[row : row + rows], work.terms)
        row += rows


def outputs(y, out, layer, work):
    """Fill out (N, O) with the activation of the output layer."""
    total, features = y.shape
    columns, block = layer.bias.size, work.z.shape[0]
    for row in range(0, total, block):
        rows = min(block, total - row)
        z = work.z[:rows]
        plus_row(y[row : row + rows], layer.forward, layer.bias, z[:, :columns], features, work.room)
        for i in range(rows):
            activated(z[i, :columns], out[row + i])


def cross_entropy(z, columns, outputs, targets, weights, terms):
    """Return the weighted sum of the rows' losses, and turn z into its cotangent; z is -inf beyond the outputs."""
    loss = 0.0
    for i in range(z.shape[0]):
        row, weight = z[i, :columns], weights[i]
        if weight == ZERO:
            for u in range(columns):
                row[u] = ZERO
            continue
        term, total = row_loss(row, targets[i], weight)
        loss += term
        factor = weight / total
        for u in range(columns):
            row[u] *= factor
        row[targets[i]] -= weight
    return loss


def cross_entropy_loss(z, columns, targets, weights, terms):
    loss = 0.0
    for i in range(z.shape[0]):
        if weights[i] != ZERO:
            loss += row_loss(z[i, :columns], targets[i], weights[i])[0]
    return loss


def row_loss(row, target, weight):
    """Return the loss of a row and the sum of its exponentials, which take the place of the row."""
    highest = _highest(row)
    chosen = row[target] - highest
    for u in range(row.size):
        row[u] = exp(row[u] - highest)
    total = _sum(row)
    return weight * (log(total) - chosen), total


def squared_errors(z, columns, outputs, targets, weights, terms):
    """As ``cross_entropy``, for squared errors; z stays 0 beyond the outputs."""
    loss = 0.0
    for i in range(z.shape[0]):
        row, target, weight = z[i, :outputs], targets[i], weights[i]
        for u in range(outputs):
            output = activate(row[u])
            term, cotangent = squared_error(output, target[u], weight[u])
            terms[u] = term
            row[u] = slope(cotangent, output)
        loss += _sum_in_double(terms)
    return loss


def squared_errors_loss(z, columns, targets, weights, terms):
    loss = 0.0
    for i in range(z.shape[0]):
        row, target, weight = z[i], targets[i], weights[i]
        for u in range(terms.size):
            terms[u] = squared_error(activate(row[u]), target[u], weight[u])[0]
        loss += _sum_in_double(terms)
    return loss


def softmax_of(row, out):
    highest = _highest(row)
    for u in range(row.size):
        row[u] = exp(row[u] - highest)
    total = _sum(row)
    for u in range(out.size):
        out[u] = row[u] / total


def activations_of(row, out):
    for u in range(out.size):
        out[u] = activate(row[u])


def packing(weight, layer):
    """Pack a weight (O, F) for both directions; chunks of rows for the second, in the order in which they are read."""
    outputs, features = weight.shape
    packing_forward(weight, layer)
    width = layer.backward.size // outputs
    for first in range(0, outputs, CHUNK):
        last = min(first + CHUNK, outputs)
        pack(weight[first:last], features, layer.backward[first * width : last * width])


def packing_forward(weight, layer):
    """Pack a weight for results alone."""
    pack(weight.T, weight.shape[0], layer.forward)


# the order of these sums and comparisons is free, so that they become vectors; it is the same in every call


@njit(nogil=True, error_model="numpy", fastmath={"nnan", "nsz"})
def _highest(row):
    """The maximum; anything where there is a NaN."""
    highest = row[0]
    for u in range(row.size):
        highest = row[u] if row[u] > highest else highest
    return highest


@njit(nogil=True, error_model="numpy", fastmath={"reassoc"})
def _sum(row):
    total = row[0]
    for u in range(1, row.size):
        total += row[u]
    return total


@register_jitable
def _sum_in_double(row):
    total = 0.0
    for u in range(row.size):
        total += row[u]
    return total
