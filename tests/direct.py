"""The definition of the operator as plain loops, slow and independent of how `Conv.evaluate` computes it."""

import numpy as np

from fuser.algebra.conv import Conv, Ints
from fuser.algebra.lazy import Array


def direct(conv: Conv, x: Array) -> Array:
    """The output for `x [N, I, *n]`, one output position and one tap at a time."""
    return _transposed(conv, x) if conv.transposed else _plain(conv, x)


def unclipped(conv: Conv, n: Ints) -> Ints:
    """The output extent by the formula of the ONNX standard; below zero where the kernel does not fit."""
    reach = [d * (k - 1) for d, k in zip(conv.dilation, conv.size, strict=True)]
    if conv.transposed:
        return tuple(
            s * (m - 1) + r + 1 - b - e
            for m, s, r, b, e in zip(n, conv.stride, reach, conv.begin, conv.end, strict=True)
        )
    return tuple(
        (m + b + e - r - 1) // s + 1
        for m, s, r, b, e in zip(n, conv.stride, reach, conv.begin, conv.end, strict=True)
    )


def dense(conv: Conv) -> Array:
    """The kernel with its groups written out, `[O, I, *k]`."""
    weight = conv.weight
    result = np.zeros((conv.outputs, conv.inputs, *conv.size))
    for o in range(conv.outputs):
        group = o // (conv.outputs // conv.groups)
        for i in range(weight.shape[1]):
            result[o, group * weight.shape[1] + i] = weight[o, i]
    return result


def _plain(conv: Conv, x: Array) -> Array:
    n, kernel = x.shape[2:], dense(conv)
    y = np.zeros((x.shape[0], conv.outputs, *(max(0, m) for m in unclipped(conv, n))))
    for t in np.ndindex(y.shape[2:]):
        y[(..., *t)] = conv.bias
        for j in np.ndindex(conv.size):
            q = tuple(
                s * a + d * b - p
                for s, a, d, b, p in zip(conv.stride, t, conv.dilation, j, conv.begin, strict=True)
            )
            inside = all(0 <= at < m for at, m in zip(q, n, strict=True))
            column = x[(..., *q)] if inside else np.broadcast_to(conv.pad_value, x.shape[:2])
            y[(..., *t)] += column @ kernel[(..., *j)].T
    return y


def _transposed(conv: Conv, x: Array) -> Array:
    n, kernel = x.shape[2:], dense(conv)
    y = np.zeros((x.shape[0], conv.outputs, *(max(0, m) for m in unclipped(conv, n))))
    y += conv.bias.reshape(-1, *(1,) * conv.rank)
    for t in np.ndindex(n):
        for j in np.ndindex(conv.size):
            q = tuple(
                s * a + d * b - p
                for s, a, d, b, p in zip(conv.stride, t, conv.dilation, j, conv.begin, strict=True)
            )
            if all(0 <= at < m for at, m in zip(q, y.shape[2:], strict=True)):
                y[(..., *q)] += x[(..., *t)] @ kernel[(..., *j)].T
    return y
