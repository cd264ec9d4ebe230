"""How ONNX expresses an operator: the plan of one or a few ONNX operators for a `Conv` or a `Sum`.

A plan is made before anything is edited: the driver asks whether there is one, and how many operators it has.
The weights in it are computed when the file is written.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fuser.algebra.conv import Conv, Ints, regroup
from fuser.errors import Declined, require
from fuser.ir.constant import FLOATS
from fuser.ir.node import Value
from fuser.ir.ops import Concat, Op, Permute, Reshape, Sum

SINGLE_ONLY: Final = frozenset({"AveragePool", "Conv", "ConvTranspose"})
"""What onnxruntime has for float32 and float16, and not for float64."""

OLDEST_OPSET: Final = 7
"""Since this one Add and Mul broadcast as numpy does."""


Attribute = int | float | str | Ints


@dataclass(frozen=True, eq=False)
class Weight:
    """A constant operand, called after its `role`. `dtype` is that of the result where it is None."""

    role: str
    shape: Ints
    compute: Callable[[], NDArray[Any]]
    dtype: str | None = None


@dataclass(frozen=True, eq=False)
class Step:
    """One ONNX operator. An integer operand is that input of the lowered operator, None an absent one."""

    kind: str
    operands: tuple["int | Step | Weight | None", ...]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)

    def steps(self) -> list["Step"]:
        """This step behind those that it reads."""
        before = [step for part in self.operands if isinstance(part, Step) for step in part.steps()]
        return [*before, self]


class OnnxHost:
    """One ONNX graph, function or body behind a `Graph`: its values, its opset, and what it can express.

    `opset` is that of the default domain: 0, which is none, where it is not imported. A body imports nothing;
    its opset is that of what it is in, a function's its own.
    """

    def __init__(self, model: ir.Model, graph: ir.Graph | ir.Function, opset: int | None = None) -> None:
        self.model = model
        self.graph = graph
        imports = graph.opset_imports if isinstance(graph, ir.Function) else model.opset_imports
        named = imports.get("", imports.get("ai.onnx", 0))
        self.opset = named if opset is None else opset
        self.values: dict[Value, ir.Value] = {}

    def require_lowerable(self, op: Op, output: Value) -> None:
        """Ask for a plan, of operators that a runtime has or that the source has too.

        Raises:
            Declined: ONNX has no operator for it, or onnxruntime none of that type; the reason holds both
                values.
        """
        for step in plan(op, output, self.opset).steps():
            require(
                output.dtype != "float64" or step.kind not in SINGLE_ONLY or step.kind in self._of_float64,
                f"onnxruntime has no {step.kind} of float64, and the source has none either: {output.name!r}",
            )

    @cached_property
    def _of_float64(self) -> frozenset[str]:
        """The kinds of operators that make a float64 value in the source."""
        makers = (host.producer() for value, host in self.values.items() if value.dtype == "float64")
        return frozenset(maker.op_type for maker in makers if maker is not None)

    def kernels(self, op: Op, output: Value) -> int:
        """The number of ONNX operators, one for what cannot be lowered.

        A Pad in front of a convolution counts twice: it moves the whole input, so that no rewrite that leaves
        one there gains by it.
        """
        try:
            steps = plan(op, output, self.opset).steps()
        except Declined:
            return 1
        return len(steps) + sum(step.kind == "Pad" for step in steps[:-1])


def plan(op: Op, output: Value, opset: int) -> Step:
    """The ONNX operators that compute `op` where it makes `output`.

    Raises:
        Declined: there are none.
    """
    require(opset >= OLDEST_OPSET, f"opset {opset} is older than {OLDEST_OPSET}")
    if isinstance(op, Sum):
        return _sum(op, output)
    if isinstance(op, Concat):
        return Step("Concat", tuple(range(op.parts)), {"axis": op.axis})
    if isinstance(op, Reshape):
        target = np.array([-1, *op.shape])
        return Step("Reshape", (0, Weight("shape", target.shape, lambda: target, "int64")))
    if isinstance(op, Permute):
        return Step("Transpose", (0,), {"perm": op.axes})
    if not isinstance(op, Conv):
        raise Declined(f"{op} is not affine")
    require(output.dtype in FLOATS, f"the dtype of {output.name!r} is {output.dtype}, not a floating one")
    if op.pointwise:
        return _scale_shift(op, output)
    if op.rank == 0:
        return _linear(op, output, opset)
    if op.transposed:
        return _conv_transpose(op)
    return _pad(op, 0, opset) if _only_pads(op) else _conv(op, opset)


def _scale_shift(conv: Conv, output: Value) -> Step:
    """x * scale + shift, without what is neutral."""
    if conv.axis == 1:
        found = output.rank
        require(
            found in (None, conv.rank + 2), f"the tensor has {found} axes, the kernel is for {conv.rank + 2}"
        )
    shape = (conv.outputs, *(1,) * conv.rank)
    scale = conv.weight.reshape(shape)
    result: Step | int = 0
    if (scale != 1.0).any():
        result = Step("Mul", (result, Weight("scale", shape, lambda: scale)))
    if conv.bias.any():
        result = Step("Add", (result, Weight("shift", shape, lambda: conv.bias.reshape(shape))))
    return result if isinstance(result, Step) else Step("Identity", (result,))


def _linear(conv: Conv, output: Value, opset: int) -> Step:
    """Gemm for matrices, MatMul and Add for other tensors."""
    require(conv.axis == -1 or output.rank == 2, f"channels on axis 1 of a tensor with {output.rank} axes")
    dense = regroup(conv, 1)
    rows, columns = dense.outputs, dense.inputs
    bias = Weight("bias", (rows,), lambda: dense.bias)
    if output.rank == 2:
        weight = Weight("weight", (rows, columns), dense.kernel.peek)
        # The bias is optional since opset 11.
        operands = (0, weight, bias) if dense.bias.any() or opset < 11 else (0, weight)
        return Step("Gemm", operands, {"alpha": 1.0, "beta": 1.0, "transB": 1})
    product = Step("MatMul", (0, Weight("weight", (columns, rows), lambda: dense.kernel.peek().T)))
    return Step("Add", (product, bias)) if dense.bias.any() else product


def _only_pads(conv: Conv) -> bool:
    """Whether the operator moves and pads, and does nothing else."""
    bare = conv.depthwise and all(v == 1 for v in conv.size + conv.stride)
    return bare and not conv.bias.any() and bool((conv.weight == 1.0).all())


def _pad(conv: Conv, source: int | Step, opset: int) -> Step:
    """An explicit Pad with the pads of `conv`."""
    value = _uniform_pad_value(conv)
    pads = (0, 0, *conv.begin, 0, 0, *conv.end)
    if opset < 11:
        return Step("Pad", (source,), {"mode": "constant", "pads": pads, "value": value})
    operands: tuple[int | Step | Weight | None, ...]
    operands = (source, Weight("pads", (len(pads),), lambda: np.array(pads), "int64"))
    if value:
        operands = (*operands, Weight("pad_value", (), lambda: np.array(value)))
    return Step("Pad", operands, {"mode": "constant"})


def _uniform_pad_value(conv: Conv) -> float:
    low, high = float(conv.pad_value.min()), float(conv.pad_value.max())
    require(low == high, f"the pad value differs between channels: {low:.6g} and {high:.6g}")
    return low


def _conv(conv: Conv, opset: int) -> Step:
    """Conv, behind a Pad where the border is not zero."""
    require(min(conv.begin + conv.end) >= 0, f"negative pads: {conv.begin + conv.end}")
    source: int | Step = 0
    bare = conv
    if _uniform_pad_value(conv):
        source = _pad(conv, 0, opset)
        bare = replace(conv, begin=(0,) * conv.rank, end=(0,) * conv.rank)
    geometry = _geometry(bare, bare.begin + bare.end)
    if conv.averages and max(p - k for p, k in zip(conv.begin + conv.end, conv.size * 2, strict=True)) < 0:
        geometry = {name: geometry[name] for name in ("kernel_shape", "pads", "strides")}
        return Step("AveragePool", (source,), {**geometry, "count_include_pad": 1})
    weight = Weight("weight", conv.kernel.shape, conv.kernel.peek)
    return Step("Conv", (source, weight, *_bias(conv)), geometry)


def _conv_transpose(conv: Conv) -> Step:
    """ConvTranspose; where the end crops less than nothing, the rest is `output_padding`."""
    require(min(conv.begin) >= 0, f"negative pads at the begin: {conv.begin}")
    extra = tuple(max(0, -end) for end in conv.end)
    # ONNX would allow less than the dilation as well, onnxruntime does not.
    require(
        all(more < stride for more, stride in zip(extra, conv.stride, strict=True)),
        f"output_padding {extra} is not less than the stride {conv.stride}",
    )
    O, I, g = conv.outputs, conv.inputs, conv.groups  # noqa: E741
    shape = (I, O // g, *conv.size)

    def compute() -> NDArray[Any]:
        blocks = conv.weight.reshape(g, O // g, I // g, *conv.size)
        return np.swapaxes(blocks, 1, 2).reshape(shape)

    attributes = _geometry(conv, conv.begin + tuple(max(0, end) for end in conv.end))
    if any(extra):
        attributes["output_padding"] = extra
    return Step("ConvTranspose", (0, Weight("weight", shape, compute), *_bias(conv)), attributes)


def _bias(conv: Conv) -> tuple[Weight, ...]:
    return (Weight("bias", (conv.outputs,), lambda: conv.bias),) if conv.bias.any() else ()


def _geometry(conv: Conv, pads: Ints) -> dict[str, Attribute]:
    return {
        "dilations": conv.dilation,
        "group": conv.groups,
        "kernel_shape": conv.size,
        "pads": pads,
        "strides": conv.stride,
    }


def _sum(op: Sum, output: Value) -> Step:
    """Add and Sub for coefficients of 1 and -1; one Mul for a common factor, else one for each other one."""
    magnitudes = {abs(c) for c in op.coefficients}
    exact = magnitudes <= {1.0} and not op.offset
    require(
        exact or output.dtype in FLOATS,
        f"the dtype of {output.name!r} is {output.dtype}, not a floating one, for {op}",
    )
    largest = max(map(abs, (*op.coefficients, op.offset)))
    limit = _largest(output.dtype)
    require(largest <= limit, f"{largest:.6g} overflows {output.dtype}, whose largest number is {limit:.6g}")
    common = magnitudes.pop() if len(magnitudes) == 1 and len(op.coefficients) > 1 else 1.0
    plus: list[int | Step] = []
    minus: list[int | Step] = []
    for index, coefficient in enumerate(op.coefficients):
        factor = coefficient / common
        if abs(factor) == 1.0:
            (plus if factor > 0 else minus).append(index)
        else:
            plus.append(Step("Mul", (index, _scalar("factor", factor))))
    total = _total(plus)
    if total is None:
        total = _total(minus)
        total = Step("Neg", (total,))
    else:
        for term in minus:
            total = Step("Sub", (total, term))
    if common != 1.0:
        total = Step("Mul", (total, _scalar("factor", common)))
    if op.offset:
        total = Step("Add", (total, _scalar("offset", op.offset)))
    return total if isinstance(total, Step) else Step("Identity", (total,))


def _largest(dtype: str | None) -> float:
    """The largest number of a dtype; one is enough for those in which nothing is scaled."""
    if dtype not in FLOATS:
        return 1.0
    return float(np.finfo("float32" if dtype == "bfloat16" else dtype).max)


def _total(terms: list[int | Step]) -> int | Step | None:
    """The sum of terms; None where there are none."""
    if len(terms) < 2:
        return terms[0] if terms else None
    return Step("Add" if len(terms) == 2 else "Sum", tuple(terms))


def _scalar(role: str, value: float) -> Weight:
    return Weight(role, (), lambda: np.array(value))
