"""In which operands calls are affine, which work element by element, which look at shapes alone.

That is what regions are made of.
"""

from typing import Final

from fuser.hosts.torch.call import Call

Operands = tuple[frozenset[int], ...]

ELEMENTWISE: Final = frozenset(
    {"abs", "add", "celu", "clamp", "clamp_max", "clamp_min", "cos", "div", "elu", "erf", "exp", "gelu"}
    | {"hardsigmoid", "hardswish", "hardtanh", "identity", "leaky_relu", "log", "mish", "mul", "neg", "pow"}
    | {"reciprocal", "relu", "relu6", "rsqrt", "selu", "sigmoid", "sign", "silu", "sin", "softplus"}
    | {"softsign", "sqrt", "square", "sub", "tanh"}
)
"""Every element from those at the same position, operands broadcast; no parameter for each channel."""

OF_SHAPE: Final = frozenset({"sym_size", "sym_numel", "zeros_like", "ones_like", "new_zeros"})

_MOVES: Final = frozenset(
    {"clone", "contiguous", "diagonal", "div", "expand", "flatten", "flip", "gather", "getitem", "identity"}
    | {"index", "index_select", "narrow", "neg", "pad", "permute", "pixel_shuffle", "pixel_unshuffle"}
    | {"repeat", "reshape", "roll", "select", "slice", "squeeze", "t", "tile", "transpose", "unfold"}
    | {"unflatten", "unsqueeze"}
)
_LINEAR: Final[dict[str, Operands]] = {
    **dict.fromkeys(_MOVES, (frozenset({0}),)),
    **dict.fromkeys(
        ("add", "sub", "copy", "slice_scatter", "select_scatter", "diagonal_scatter"), (frozenset({0, 1}),)
    ),
    "mul": (frozenset({0}), frozenset({1})),
    "where": (frozenset({1, 2}),),
}


def linear(call: Call) -> Operands:
    """Sets of operands in which a call is affine, each taken together."""
    count = len(call.operands)
    if call.kind in {"cat", "stack"}:
        return (frozenset(range(count)),)
    if call.kind in {"index_put", "scatter"}:
        return (frozenset({0, count - 1}),)
    return _LINEAR.get(call.kind, ())
