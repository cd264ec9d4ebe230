"""A positive scale passes a non-linearity that is homogeneous: relu(s * x) = s * relu(x) for s > 0."""

from collections.abc import Iterator

import numpy as np

from fuser.algebra.conv import Conv
from fuser.errors import require
from fuser.ir.node import Apply, Node, Value
from fuser.ir.ops import Opaque, Sum
from fuser.rewrite.pattern import FOLD, Candidate, describe_fully, rewrite
from passes._branch import Branch, readers, unary


@rewrite(Conv, Sum, stage=FOLD)
def fold_scale_through(node: Node) -> Iterator[Candidate]:
    """conv(relu(s * x))  ->  conv'(relu(x)), also through LeakyReLU, PReLU and pooling.

    The scale is per channel or scalar, strictly positive and without shift, and every reader of it is such an
    operator with convolutions behind it; so it vanishes.

    Given:
        x: float32 [1, 4, 8, 8]
        a = scale (x)
        b = Relu (a)
        y = 3x3 conv, 4 -> 8, pads (1, 1, 1, 1) (b)
        return y
    Result:
        x: float32 [1, 4, 8, 8]
        b = Relu (x)
        y = 3x3 conv, 4 -> 8, pads (1, 1, 1, 1) (b)
        return y

    Declined:
        x: float32 [1, 4, 8, 8]
        a = -2 x
        b = Relu (a)
        y = 3x3 conv, 4 -> 8, pads (1, 1, 1, 1) (b)
        return y
        # the scale is not positive everywhere: -2
    """
    source, value = node.inputs[0], node.outputs[0]
    users = list(value.users)
    if source is None or not users or not all(is_homogeneous(user) for user in users):
        return
    if not unary(node) and not (isinstance(node.op, Conv) and node.op.pointwise):
        return
    require_positive(node.op)
    targets: dict[Value, Apply] = {}
    for reader in readers(value):
        result = reader.outputs[0]
        require(not result.is_output, f"{result.name!r} is a graph output")
        parameters = [v for v in reader.inputs[1:] if v is not None]
        targets[result] = Apply(reader.op, (source, *parameters))
        for user in readers(result):
            require(isinstance(user.op, Conv), f"{describe_fully(user)} reads it and is no convolution")
            assert isinstance(user.op, Conv)
            # The same scale behind the non-linearity, as if the node had stood there.
            targets[user.outputs[0]] = Apply(Branch(user.op, value).after(node).op, (result,))
    yield targets


def is_homogeneous(node: Node) -> bool:
    """Whether f(s * x) = s * f(x) for s > 0, in one output."""
    return isinstance(node.op, Opaque) and node.op.homogeneous and len(node.outputs) == 1


def require_positive(op: object) -> None:
    """Decline a shift, and a scale that is not strictly positive."""
    scale = (
        op.weight
        if isinstance(op, Conv)
        else np.asarray(op.coefficients)
        if isinstance(op, Sum)
        else np.zeros(1)
    )
    shift = op.bias if isinstance(op, Conv) else np.asarray(op.offset) if isinstance(op, Sum) else np.zeros(1)
    require(not shift.any(), f"a shift does not pass a non-linearity: {float(np.abs(shift).max()):.6g}")
    require(float(scale.min()) > 0, f"the scale is not positive everywhere: {float(scale.min()):.6g}")
