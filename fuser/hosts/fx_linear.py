"""In which operands calls are affine, which work element by element, which look at shapes: what regions are made of."""

from typing import Final

from fuser.hosts.fx_call import Call

Operands = tuple[frozenset[int], ...]

ELEMENTWISE: Final = frozenset(
    "relu relu6 silu sigmoid hardswish hardsigmoid hardtanh gelu tanh leaky_relu elu selu celu mish softplus clamp "
    "clamp_min clamp_max abs exp log sqrt rsqrt square pow reciprocal softsign erf sin cos sign add sub mul div neg "
    "identity".split()
)
"""Every element from those at the same position; operands broadcast. None has a parameter for each channel."""

OF_SHAPE: Final = frozenset({"sym_size", "sym_numel", "zeros_like", "ones_like", "new_zeros"})

_MOVES: Final = (
    "clone contiguous diagonal expand flatten flip gather getitem identity index index_select narrow neg pad "
    "permute pixel_shuffle pixel_unshuffle repeat reshape roll select slice squeeze t tile transpose unfold unsqueeze div"
)
_LINEAR: Final[dict[str, Operands]] = {
    **dict.fromkeys(_MOVES.split(), (frozenset({0}),)),
    **dict.fromkeys(("add", "sub", "copy", "slice_scatter", "select_scatter", "diagonal_scatter"), (frozenset({0, 1}),)),
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
