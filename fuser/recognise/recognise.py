"""Which convolution is this function? Found by looking at what it does, not at how it is written.

A map that is affine by construction and takes each of its values from one place (padding, cropping, index
assignment, permutations, strided slices, in any spelling) tells where by itself: fed with numbers that are
all different, it returns some of them. From those places stride, taps and pads are read off, from its answer
to zero bias and pad values. Then the convolution found must give the same answers, at every extent that is
tried: two affine maps that agree on a generic input and on zero are equal.

Arrays only: nothing here knows a graph.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import gcd, prod
from typing import Final, TypedDict

import numpy as np
from numpy.typing import NDArray

from fuser.algebra.conv import Conv, Ints
from fuser.algebra.lazy import Array, Lazy
from fuser.errors import Declined, require

Function = Callable[[Array], Array]

# Probes count up from 1, with a fraction that is never near 0 or 1; what is this close is the same number.
CLOSE: Final = 1e-6


@dataclass(frozen=True)
class Response:
    """What a function answers for one input shape `[N, I, *n]`.

    `constant` is its answer `[N, O, *m]` to zero, `answer` the one to `probe`. `moved` says which elements
    depend on the input, and `index` which element of the input each of them is, 0 elsewhere.
    """

    probe: Array
    constant: Array
    answer: Array
    moved: NDArray[np.bool_]
    index: NDArray[np.int64]

    @property
    def extents(self) -> list[tuple[int, int]]:
        """Extent of the input and of the output, for each spatial axis."""
        return list(zip(self.probe.shape[2:], self.answer.shape[2:], strict=True))


def recognise(function: Function, shapes: Sequence[Ints]) -> Conv | None:
    """The convolution that `function` is for inputs of the given `shapes`; None where it is nothing like one.

    Args:
        function: an affine map of `x [N, I, *n]` to an array of as many axes.
        shapes: input shapes to try it on. It is proven equal for these; for which others they speak is up to
            the caller.

    Raises:
        Declined: it resembles a convolution, and differs from it somewhere. The reason has both values.
    """
    if not _plausible(function, shapes[0]):
        return None
    responses = [_try(function, shape) for shape in shapes]
    if any(response is None for response in responses):
        return None
    known = [response for response in responses if response is not None]
    found = _Taps.read(known)
    try:
        for response in known:
            found.require_equal(response)
    except Declined:
        # A value for each position is added, as a positional embedding is: nobody takes that for padding.
        if found.local:
            return None
        raise
    return found.conv()


def _plausible(function: Function, shape: Ints) -> bool:
    """A glance: along the output's spatial axes the input is read along the same axes, steadily.

    Transpositions between layouts are in every vision transformer, and must not cost a full look.
    """
    answer = function(np.arange(prod(shape), dtype=np.float64).reshape(shape))
    if answer.ndim != len(shape) or answer.shape[0] != shape[0] or not answer.size:
        return False
    centre = tuple(n // 2 for n in answer.shape)
    for axis in range(2, len(shape)):
        if centre[axis] + 1 < answer.shape[axis]:
            there = tuple(c + (a == axis) for a, c in enumerate(centre))
            steps = (answer[there] - answer[centre]) / prod(shape[axis + 1 :])
            if not (abs(steps - np.rint(steps)) <= CLOSE and 1 <= np.rint(steps) < shape[axis]):
                return False
    return True


def _try(function: Function, shape: Ints) -> Response | None:
    """Feed zeros and the probe; None where an element is neither constant nor one element of the input."""
    size = prod(shape)
    probe = np.arange(1.0, size + 1) + np.random.default_rng(0).uniform(0.25, 0.75, size)
    constant = np.asarray(function(np.zeros(shape)), dtype=np.float64)
    answer = np.asarray(function(probe.reshape(shape)), dtype=np.float64)
    if answer.shape != constant.shape or answer.ndim != len(shape) or answer.shape[0] != shape[0]:
        return None
    reach = answer - constant
    moved = np.abs(reach) > CLOSE
    if not (np.isfinite(reach).all() and reach.min(initial=0) >= -CLOSE and reach.max(initial=0) < size + 1):
        return None
    index = np.maximum(reach.astype(np.int64) - 1, 0)
    if not (np.abs(probe[index] - reach)[moved] <= CLOSE).all():
        return None
    return Response(probe.reshape(shape), constant, answer, moved, index)


class _Geometry(TypedDict):
    stride: Ints
    dilation: Ints
    begin: Ints
    end: Ints


@dataclass(frozen=True)
class _Taps:
    """A convolution whose every output channel `o` is one tap of one input channel, plus a bias.

    `channel [O]` is that input channel, `live [O]` whether there is one, `at [O, axes]` the index of the tap.
    """

    inputs: int
    channel: NDArray[np.int64]
    live: NDArray[np.bool_]
    at: NDArray[np.int64]
    size: Ints
    geometry: "_Geometry"
    bias: Array
    pad_value: Array

    @classmethod
    def read(cls, responses: Sequence[Response]) -> "_Taps":
        """Read it off; what does not fit the picture shows when the answers are compared."""
        response = responses[0]
        axes = response.probe.ndim - 2
        outputs, extent = response.answer.shape[1], response.answer.shape[2:]
        moved = response.moved[0].reshape(outputs, -1)
        live = moved.any(axis=1)
        require(bool(live.any()), "the result does not depend on the input")
        rows = np.arange(outputs)
        first, last = moved.argmax(axis=1), moved.shape[1] - 1 - moved[:, ::-1].argmax(axis=1)
        # Flat, since numpy 2.4 unravels a long array [n, 1] wrongly from element 8193 on.
        place = np.stack(np.unravel_index(response.index[0].reshape(-1), response.probe.shape))
        place = place.reshape(-1, *moved.shape)
        begins, ends = (np.stack(np.unravel_index(t, extent), axis=1) for t in (first, last))
        read, until = (place[2:, rows, t].T for t in (first, last))
        stride = tuple(
            _stride(ends[live, a] - begins[live, a], until[live, a] - read[live, a]) for a in range(axes)
        )
        offset = read - begins * np.asarray(stride, dtype=np.int64).reshape(1, axes)
        low = [int(offset[live, a].min()) for a in range(axes)]
        step = tuple(int(np.gcd.reduce(offset[live, a] - low[a])) or 1 for a in range(axes))
        span = [int(offset[live, a].max()) - low[a] for a in range(axes)]
        slack = _slack(responses, stride)
        at = np.where(live[:, None], (offset - low) // np.asarray(step), 0)
        channel = np.where(live, place[1, rows, first], 0)
        constant = response.constant[0].reshape(outputs, -1)
        bias = constant[rows, first]
        outside = moved.argmin(axis=1)
        pad_value = np.zeros(response.probe.shape[1])
        bordered = live & ~moved.all(axis=1)
        pad_value[channel[bordered]] = (constant[rows, outside] - bias)[bordered]
        geometry: _Geometry = {
            "stride": stride,
            "dilation": step,
            "begin": tuple(-n for n in low),
            "end": tuple(t + n + w for t, n, w in zip(slack, low, span, strict=True)),
        }
        size = tuple(w // d + 1 for w, d in zip(span, step, strict=True))
        return cls(response.probe.shape[1], channel, live, at, size, geometry, bias, pad_value)

    @property
    def local(self) -> bool:
        """Whether each position is read where it stands."""
        moved = {
            *self.geometry["begin"],
            *self.geometry["end"],
            *(n - 1 for n in (*self.size, *self.geometry["stride"])),
        }
        return moved == {0}

    def kernel(self, groups: int, channel: NDArray[np.int64], inputs: int) -> Lazy:
        """`[O, inputs/groups, *k]`, a one for each live channel."""
        outputs = self.channel.shape[0]
        shape = (outputs, inputs // groups, *self.size)

        def place() -> Array:
            weight = np.zeros(shape)
            rows = np.flatnonzero(self.live)
            weight[(rows, channel[rows] % shape[1], *self.at[rows].T)] = 1.0
            return weight

        return Lazy(shape, place)

    def conv(self) -> Conv:
        """The convolution, in as many groups as the channels allow."""
        outputs = self.channel.shape[0]
        common = gcd(outputs, self.inputs)
        groups = max(g for g in range(1, common + 1) if common % g == 0 and self._fits(g))
        kernel = self.kernel(groups, self.channel, self.inputs)
        return Conv(kernel, self.bias, groups=groups, pad_value=self.pad_value, **self.geometry)

    def _fits(self, groups: int) -> bool:
        rows = np.flatnonzero(self.live)
        wanted = rows // (self.channel.shape[0] // groups)
        return bool((self.channel[rows] // (self.inputs // groups) == wanted).all())

    def require_equal(self, response: Response) -> None:
        """Compare with the answers of the function, element by element."""
        outputs = self.channel.shape[0]
        # Depthwise behind a permutation of the input: cheap, however many channels there are.
        alone = Conv(
            self.kernel(outputs, np.zeros(outputs, dtype=np.int64), outputs),
            self.bias,
            groups=outputs,
            pad_value=self.pad_value[self.channel],
            **self.geometry,
        )
        border = alone.evaluate(np.zeros((1, outputs, *response.probe.shape[2:])))
        shape = (response.probe.shape[0], *border.shape[1:])
        require(
            response.answer.shape == shape,
            f"the shapes differ: {response.answer.shape} here, {shape} from ({alone}) of "
            f"{response.probe.shape}",
        )
        scale = float(np.abs(response.constant).max(initial=0.0))
        _require_close(response.constant, np.broadcast_to(border, shape), "for zeros", alone, 1e-12 * scale)
        answer = alone.evaluate(response.probe[:, self.channel])
        _require_close(response.answer, answer, "for a generic input", alone, CLOSE * max(1.0, scale))


def _stride(steps: NDArray[np.int64], ways: NDArray[np.int64]) -> int:
    """How far the input moves on when the output moves on by one."""
    at = int(steps.argmax())
    return max(1, int(ways[at]) // int(steps[at])) if steps[at] else 1


def _slack(responses: Sequence[Response], stride: Ints) -> Ints:
    """`slack` of each axis as `Conv` has it: the least that gives all the output extents."""
    slack = []
    for axis, s in enumerate(stride):
        pairs = [response.extents[axis] for response in responses]
        least, most = max((m - 1) * s + 1 - n for n, m in pairs), min(m * s - n for n, m in pairs)
        require(
            least <= most, f"the extents of axis {axis} do not fit a stride of {s}: {pairs}, input and output"
        )
        slack.append(least)
    return tuple(slack)


def _require_close(found: Array, wanted: Array, what: str, conv: Conv, tolerance: float) -> None:
    wrong = ~(np.abs(found - wanted) <= tolerance)
    if wrong.any():
        at = tuple(map(int, np.unravel_index(int(wrong.argmax()), wrong.shape)))
        size = "x".join(map(str, conv.size))
        raise Declined(
            f"the border is not that of a convolution: {what}, channel {at[1]} holds {float(found[at]):.6g} "
            f"at {at[2:]}, where {size} with pads {conv.begin + conv.end} and pad value "
            f"{float(conv.pad_value[at[1]]):.6g} gives {float(wanted[at]):.6g}"
        )


def snap(conv: Conv, border: Array, epsilon: float) -> Conv:
    """The same padding with `border [I]` as its value, where that differs only by the rounding of the host.

    An exporter computes the value of a border in another way than the bias that it is meant to continue, and
    rounds both.
    """
    scale = float(np.abs(border).max(initial=0.0))
    if not conv.reads_outside or np.array_equal(border, conv.pad_value):
        return conv
    near = bool((np.abs(border - conv.pad_value) <= 16 * epsilon * scale).all())
    return replace(conv, pad_value=border) if near else conv
