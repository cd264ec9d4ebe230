"""Operators in words, both ways: how the text of a graph calls them, and an operator of that description.

    operator    = convolution | pool | pad | map | select | "concat, axis " A | KIND
                  | "reshape to " TUPLE | "permute to " TUPLE
    convolution = (["transposed "] K["x"K...] " conv, " | "linear, ") I " -> " O attributes
                  [", axis 1"] [", bias"] [zeros | ", " N " blocks" | ", rank " N]
    attributes  = [", groups " N] [", stride " TUPLE] [", dilation " TUPLE] [", pads " TUPLE [" with " VALUE]]
    zeros       = ", zero" | [", zero outputs " LIST] [", zero inputs " LIST] [", zero taps " LIST " x "...]
    pool        = "average pool " K["x"K...] attributes
    pad         = "pad " TUPLE [" with " VALUE]
    map         = ("batch_norm" | "scale_shift" | "scale" | "shift" | "identity") [", axis -1"]
    select      = "channels " A ":" B {", " A ":" B} " of " C [", axis -1"]

A convolution begins as its `str()` does, which refusals use too; then it says of its numbers what a rewrite
may care for: that there is a bias, a pad value that is not zero (`each`: every channel has its own), outputs,
inputs and taps whose weights are all zero, blocks of the diagonal outside of which they are, a low rank.
What follows from the tensor that it reads, as the channels of a map, is not said. Without an axis a linear
layer acts on the last one, everything else on axis 1. KIND is an opaque operator's own name, in quotes where
it could be taken for another form.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Final

import numpy as np

from fuser.algebra.conv import Conv, Ints, average_pool, pad, regroup, scale_shift
from fuser.algebra.lazy import Array
from fuser.algebra.low_rank import factor
from fuser.algebra.narrowing import block_groups, zero_columns, zero_rows
from fuser.errors import Declined, require
from fuser.ir.node import Value
from fuser.ir.ops import Concat, Op, Opaque, Permute, Reshape, Select

NUMBER: Final = r"(?:\d+(?:\.\d+)?(?:e[+-]?\d+)?|inf|nan)"
QUOTED: Final = r'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"'
TUPLE: Final = r"\([-\d, ]*\)"
LIST: Final = r"\[[\d, ]*\]"
SIZE: Final = r"(?P<size>\d+(?:x\d+)*)"
PADS: Final = rf"(?P<pads>{TUPLE})(?: with (?P<value>each|-?{NUMBER}))?"
ATTRIBUTES: Final = (
    rf"(?:, groups (?P<groups>\d+))?(?:, stride (?P<stride>{TUPLE}))?(?:, dilation (?P<dilation>{TUPLE}))?"
    rf"(?:, pads {PADS})?"
)
NUMBERS: Final = (
    rf"(?P<bias>, bias)?(?P<zero>, zero)?(?:, zero outputs (?P<rows>{LIST}))?"
    rf"(?:, zero inputs (?P<columns>{LIST}))?(?:, zero taps (?P<taps>{LIST}(?: x {LIST})*))?"
    r"(?:, (?P<blocks>\d+) blocks)?(?:, rank (?P<rank>\d+))?"
)
CONV: Final = re.compile(
    rf"(?P<transposed>transposed )?(?:{SIZE} conv|linear), (?P<I>\d+) -> (?P<O>\d+){ATTRIBUTES}"
    rf"(?P<axis>, axis 1)?{NUMBERS}"
)
POOL: Final = re.compile(rf"average pool {SIZE}{ATTRIBUTES}")
PAD: Final = re.compile(rf"pad {PADS}")
MAP: Final = re.compile(r"(?P<kind>batch_norm|scale_shift|scale|shift|identity)(?P<axis>, axis -1)?")
CONCAT: Final = re.compile(r"concat, axis (?P<axis>1|-1)")
SELECT: Final = re.compile(
    r"channels (?P<ranges>\d+:\d+(?:, \d+:\d+)*) of (?P<channels>\d+)(?P<axis>, axis -1)?"
)
RESHAPE: Final = re.compile(rf"reshape to (?P<shape>{TUPLE})")
PERMUTE: Final = re.compile(rf"permute to (?P<axes>{TUPLE})")
KIND: Final = re.compile(r"[A-Za-z_][\w.:]*")

MAPS: Final = {
    (False, False): "identity",
    (False, True): "shift",
    (True, False): "scale",
    (True, True): "scale_shift",
}
"""What a map of each channel is called, by whether it scales and whether it shifts."""

SCALES: Final = (2.0, 4.0, 8.0)
"""The scales that are drawn: positive, with exact inverses."""

TRIES: Final = 16
"""How often numbers are drawn until they are what the words say, and no more than that by chance."""


def words(op: Op, label: str, source: Value | None) -> str:
    """The operator in words, with the label of its node, where it reads `source`. Looks at its weights."""
    if isinstance(op, Conv):
        return _map(op, label, source) or _conv(op)
    if isinstance(op, Select) and op.axis != 1:
        return f"{op}, axis {op.axis}"
    if isinstance(op, Opaque):
        plain = KIND.fullmatch(op.kind) and not any(form.fullmatch(op.kind) for form in FORMS)
        return op.kind if plain else quoted(op.kind)
    return str(op)


def quoted(name: str) -> str:
    """A name in quotes."""
    return json.dumps(name, ensure_ascii=False)


def unquoted(name: str) -> str:
    """A name, whether it is in quotes or not."""
    return str(json.loads(name)) if name.startswith('"') else name


def number(value: float) -> str:
    """The shortest spelling of a number."""
    return repr(float(value)).removesuffix(".0")


def _map(conv: Conv, label: str, source: Value | None) -> str:
    """A scale and shift, a pad or an average pool of each channel of `source`; nothing where it is none."""
    shape = None if source is None else source.shape
    if shape is None or not conv.depthwise or shape[conv.axis] != conv.inputs:
        return ""
    if conv.axis == 1 and len(shape) != conv.rank + 2:
        return ""
    weight = conv.kernel.peek()
    same = bool((weight == 1).all())
    if conv.pointwise:
        kind = label if label == "batch_norm" else MAPS[not same, bool(conv.bias.any())]
        return kind + ", axis -1" * (conv.axis == -1)
    if same and conv.size == conv.stride == (1,) * conv.rank and not conv.transposed and not conv.bias.any():
        return f"pad {conv.begin + conv.end}{_pad_value(conv)}"
    if conv.averages:
        size = "x".join(map(str, conv.size))
        rest = str(conv).removeprefix(f"{size} conv, {conv.inputs} -> {conv.inputs}")
        return f"average pool {size}{rest.removeprefix(f', groups {conv.groups}')}"
    return ""


def _pad_value(conv: Conv) -> str:
    if not conv.pad_value.any():
        return ""
    values = set(conv.pad_value.tolist())
    return f" with {number(values.pop()) if len(values) == 1 else 'each'}"


def _conv(conv: Conv) -> str:
    axis = ", axis 1" if conv.rank == 0 and conv.axis == 1 else ""
    text = f"{conv}{_pad_value(conv)}{axis}" + ", bias" * bool(conv.bias.any())
    if not conv.kernel.peek().any():
        return f"{text}, zero"
    zeros = _zeros(conv)
    if zeros:
        return text + zeros
    blocks = block_groups(conv)
    if blocks > conv.groups:
        return f"{text}, {blocks} blocks"
    try:
        factors = factor(conv)
    except Declined:
        factors = None
    return text if factors is None else f"{text}, rank {factors[1].outputs}"


def _zeros(conv: Conv) -> str:
    used = conv.kernel.peek() != 0
    every = range(used.ndim)
    taps = [np.flatnonzero(~used.any(tuple(a for a in every if a != axis))).tolist() for axis in every[2:]]
    rows, columns = np.flatnonzero(zero_rows(conv)).tolist(), np.flatnonzero(zero_columns(conv)).tolist()
    text = f", zero outputs {rows}" if rows else ""
    text += f", zero inputs {columns}" if columns and conv.groups == 1 else ""
    return text + (f", zero taps {' x '.join(map(str, taps))}" if any(taps) else "")


def operator(text: str, inputs: Sequence[Value | None], random: np.random.Generator) -> tuple[Op, str]:
    """An operator that is `text` in words where it reads `inputs`, and the label of its node.

    Its numbers are drawn: small integers, but for the means of an average pool. An opaque one is its name.

    Raises:
        Declined: there is none, or it is written otherwise.
    """
    found = next(((match, read) for form, read in FORMS.items() if (match := form.fullmatch(text))), None)
    if found is None:
        require(bool(re.fullmatch(f"{KIND.pattern}|{QUOTED}", text)), f"there is no operator {text!r}")
        return Opaque(unquoted(text)), ""
    match, read = found
    written = ""
    for _ in range(TRIES):
        op, label = read(Reading(match, inputs, random))
        written = words(op, label, inputs[0] if inputs else None)
        if written == text:
            return op, label
    raise Declined(f"{text!r} is written {written!r}")


def integers(random: np.random.Generator, *shape: int) -> Array:
    """Integers from -9 to 9 without zero, so that no tap or channel is without effect."""
    signs: Array = random.choice([-1.0, 1.0], shape)
    return signs * random.integers(1, 10, shape)


@dataclass(frozen=True)
class Reading:
    """The words of one operator, taken apart, and what it reads."""

    match: re.Match[str]
    inputs: Sequence[Value | None]
    random: np.random.Generator

    def conv(self) -> tuple[Op, str]:
        """A convolution or linear layer."""
        begin, end = self._pads
        outputs, inputs = int(self.match["O"]), int(self.match["I"])
        conv = Conv.of(
            self._kernel((outputs, inputs, *self._size)),
            integers(self.random, outputs) if self.match["bias"] else None,
            groups=int(self.match["groups"] or 1),
            stride=_ints(self.match["stride"]),
            dilation=_ints(self.match["dilation"]),
            begin=begin,
            end=end,
            pad_value=self._pad_values(inputs),
            axis=1 if self._size or self.match["axis"] else -1,
            transposed=bool(self.match["transposed"]),
        )
        return conv, ""

    def pool(self) -> tuple[Op, str]:
        """An average pool."""
        size = self._size
        stride, dilation = (_ints(self.match[name]) or (1,) * len(size) for name in ("stride", "dilation"))
        begin, end = (pads or (0,) * len(size) for pads in self._pads)
        return average_pool(self._channels(1)[0], size, stride, dilation, begin, end), "average_pool"

    def pad(self) -> tuple[Op, str]:
        """A pad or crop."""
        channels, _ = self._channels(1)
        return pad(channels, *self._pads, self._pad_values(channels)), "pad"

    def map(self) -> tuple[Op, str]:
        """A scale and shift of each channel."""
        kind, axis = self.match["kind"], -1 if self.match["axis"] else 1
        channels, rank = self._channels(axis)
        scale = np.ones(channels) if kind in {"shift", "identity"} else self.random.choice(SCALES, channels)
        shift = np.zeros(channels) if kind in {"scale", "identity"} else integers(self.random, channels)
        label = "batch_norm" if kind == "batch_norm" else "scale_shift"
        return scale_shift(scale, shift, rank, axis), label

    def concat(self) -> tuple[Op, str]:
        """A concatenation of channels."""
        return Concat(len(self.inputs), int(self.match["axis"])), ""

    def select(self) -> tuple[Op, str]:
        """Ranges of channels."""
        ends = [_ints(part) for part in self.match["ranges"].split(", ")]
        ranges = tuple((first, end - first) for first, end in ends)
        return Select(ranges, int(self.match["channels"]), -1 if self.match["axis"] else 1), ""

    def reshape(self) -> tuple[Op, str]:
        """Other extents."""
        return Reshape(_ints(self.match["shape"])[1:]), ""

    def permute(self) -> tuple[Op, str]:
        """Another order of the axes."""
        return Permute(_ints(self.match["axes"])), ""

    @property
    def _size(self) -> Ints:
        return tuple(map(int, self.match["size"].split("x"))) if self.match["size"] else ()

    @property
    def _pads(self) -> tuple[Ints, Ints]:
        pads = _ints(self.match["pads"])
        return pads[: len(pads) // 2], pads[len(pads) // 2 :]

    def _pad_values(self, channels: int) -> Array:
        value = self.match["value"]
        return integers(self.random, channels) if value == "each" else np.full(channels, float(value or 0))

    def _channels(self, axis: int) -> tuple[int, int]:
        """How many channels the first input has on `axis`, and how many spatial axes."""
        require(bool(self.inputs), "there is no input")
        shape = None if self.inputs[0] is None else self.inputs[0].shape
        channels = None if shape is None or len(shape) < 2 else shape[axis]
        if shape is None or not isinstance(channels, int):
            raise Declined(f"the channels of {self.inputs[0]!r} are not known")
        return channels, len(shape) - 2 if axis == 1 else 0

    def _kernel(self, shape: Ints) -> Array:
        """Numbers `[O, I/groups, *k]` as the words say, for a dense `shape` of `[O, I, *k]`."""
        outputs, inputs, *size = shape
        groups, rank = int(self.match["groups"] or 1), int(self.match["rank"] or 0)
        blocks = int(self.match["blocks"] or groups)
        require(inputs % blocks == 0, f"{inputs} channels do not divide into {blocks}")
        if rank:
            factors = integers(self.random, outputs, rank), integers(self.random, rank, inputs * prod(size))
            weight = np.matmul(*factors).reshape(shape)
        else:
            weight = integers(self.random, outputs, inputs // blocks, *size)
        weight = regroup(Conv.of(weight, groups=blocks), groups).weight
        listed = (self.match["rows"], self.match["columns"], *(self.match["taps"] or "").split(" x "))
        for axis, zeros in enumerate(listed):
            for index in _ints(zeros):
                known = axis < weight.ndim and index < weight.shape[axis]
                require(known, f"a kernel {list(weight.shape)} has nothing at {index} of axis {axis}")
                weight[(slice(None),) * axis + (index,)] = 0
        return weight * (not self.match["zero"])


def _ints(text: str | None) -> Ints:
    return tuple(map(int, re.findall(r"-?\d+", text or "")))


FORMS: Final = {
    CONV: Reading.conv,
    POOL: Reading.pool,
    PAD: Reading.pad,
    MAP: Reading.map,
    CONCAT: Reading.concat,
    SELECT: Reading.select,
    RESHAPE: Reading.reshape,
    PERMUTE: Reading.permute,
}
"""How what is written in each form is read."""
