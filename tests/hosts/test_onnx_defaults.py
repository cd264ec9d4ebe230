"""Attributes that are left out have the standard's own default, in its precision."""

import numpy as np
import onnx
import onnx_ir
import pytest

from fuser.hosts.onnx.standard.evaluate import evaluator
from fuser.hosts.onnx.standard.kernel import Kernel
from fuser.hosts.onnx.standard.kernels import KERNELS
from tests.hosts.onnx_models import apply, lifted, run, single

OPSET = 18


def floats() -> list[tuple[str, dict[str, float]]]:
    """Operators of the table with attributes that default to a number that is not whole."""
    found = []
    for kind in sorted(KERNELS):
        if not onnx.defs.has(kind, OPSET):
            continue
        attributes = onnx.defs.get_schema(kind, OPSET).attributes.values()
        defaults = {a.name: a.default_value.f for a in attributes if a.default_value.HasField("f")}
        # The one of a cubic Resize is for a form that the table leaves to the reference.
        if kind != "Resize" and any(value != int(value) for value in defaults.values()):
            found.append((kind, defaults))
    return found


def test_there_are_some() -> None:
    assert {"HardSigmoid", "LeakyRelu"} <= {kind for kind, _ in floats()}


@pytest.mark.parametrize(("kind", "defaults"), floats(), ids=[kind for kind, _ in floats()])
def test_a_kernel_computes_in_float64_what_it_computes_where_all_is_stated(
    kind: str, defaults: dict[str, float]
) -> None:
    least = onnx.defs.get_schema(kind, OPSET).min_input
    inputs = [
        np.linspace(-2.0, 3.0, 24).reshape(2, 3, 4),
        *(np.linspace(0.5, 1.5, 3) for _ in range(least - 1)),
    ]
    names = [f"i{k}" for k in range(least)]
    both = []
    for attributes in ({}, defaults):
        proto = onnx.helper.make_node(kind, names, ["y"])
        proto.attribute.extend(onnx.helper.make_attribute(*entry) for entry in attributes.items())
        node = onnx_ir.serde.deserialize_node(proto)
        compute = evaluator(node, OPSET)
        assert isinstance(compute, Kernel)
        both.append(compute(*inputs)[0])
    assert both[0].dtype == np.float64
    np.testing.assert_array_equal(both[0], both[1])


def test_a_lifted_norm_has_the_runtimes_epsilon() -> None:
    """In a double model with a variance that is smaller than the epsilon."""
    x = np.linspace(-2.0, 3.0, 24).reshape(2, 3, 4)
    constants = {"s": np.ones(3), "b": np.zeros(3), "m": np.zeros(3), "v": np.full(3, 1e-9)}
    model = single(
        "BatchNormalization",
        ["x", *constants],
        given={"x": x.shape},
        constants=constants,
        type_=onnx.TensorProto.DOUBLE,
    )
    np.testing.assert_allclose(apply(lifted(model), {"x": x}), run(model, {"x": x})[0], rtol=1e-12)
