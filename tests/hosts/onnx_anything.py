"""Random models with everything that a valid file may hold, and with what later versions may add to it."""

import random
from collections.abc import Callable, Sequence
from typing import Any, Final

import onnx
from onnx import AttributeProto, TensorProto, TypeProto, helper

UNKNOWN: Final = b"\xfa\x7f\x05later"
"""A field of number 2047: no message has one."""

FIELDS: Final = {
    "FLOAT": "f",
    "INT": "i",
    "STRING": "s",
    "TENSOR": "t",
    "GRAPH": "g",
    "SPARSE_TENSOR": "sparse_tensor",
    "TYPE_PROTO": "tp",
    "FLOATS": "floats",
    "INTS": "ints",
    "STRINGS": "strings",
    "TENSORS": "tensors",
    "GRAPHS": "graphs",
    "SPARSE_TENSORS": "sparse_tensors",
    "TYPE_PROTOS": "type_protos",
}
"""The field of each kind of attribute."""
KINDS: Final = tuple(FIELDS)
BYTES: Final = {TensorProto.FLOAT: 4, TensorProto.INT64: 8, TensorProto.BFLOAT16: 2, TensorProto.BOOL: 1}


class Anything:
    """A generator of models, one for each seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.count = 0

    def maybe(self, part: float = 0.3) -> bool:
        """Yes, so often."""
        return self.random.random() < part

    def name(self, what: str = "n") -> str:
        """A name that nothing has."""
        self.count += 1
        return f"{what}{self.count}"

    def model(self) -> onnx.ModelProto:
        """A model with a main graph, and perhaps functions, training, devices and notes."""
        proto = onnx.ModelProto(ir_version=self.random.choice([4, 8, 9, 10, 13, 99]))
        # No standard operator is used, so that nothing depends on what its version means.
        for domain in self.shuffled([self.random.choice(["", "ai.onnx"]), "ai.onnx.ml", "acme"]):
            proto.opset_import.add(domain=domain, version=self.random.choice([1, 17, 99]))
            if domain == "" and self.maybe():
                proto.opset_import[-1].ClearField("domain")
        for field in ("producer_name", "producer_version", "domain", "doc_string"):
            if self.maybe():
                setattr(proto, field, self.random.choice(["", "said"]))
        if self.maybe():
            proto.model_version = self.random.choice([0, 3])
        for _ in range(self.random.choice([0, 0, 2])):
            proto.functions.append(self.function())
        for function in proto.functions:
            self.call(function, proto.graph)
        self.graph(proto.graph, [])
        if self.maybe():
            self.graph(proto.training_info.add().algorithm, [])
        if self.maybe():
            proto.configuration.add(name="c", num_devices=2, device=["a", "b"])
        self.notes(proto)
        return proto

    def graph(self, proto: onnx.GraphProto, around: Sequence[str], depth: int = 0) -> None:
        """Fill a graph that sees the names `around`."""
        if self.maybe(0.8):
            proto.name = self.random.choice(["", "g"])
        seen = list(around)
        for _ in range(self.random.randrange(3)):
            self.info(proto.input.add(), self.name("x"))
            seen.append(proto.input[-1].name)
        for _ in range(self.random.randrange(4)):
            self.tensor(proto.initializer.add(), self.name("w"))
            seen.append(proto.initializer[-1].name)
        if self.maybe():
            self.sparse(proto.sparse_initializer.add(), self.name("s"))
            seen.append(proto.sparse_initializer[-1].values.name)
        if proto.input and self.maybe():
            self.tensor(proto.initializer.add(), proto.input[0].name)
        made: list[str] = []
        for _ in range(self.random.randrange(1, 6 - depth)):
            self.node(proto.node.add(), [*seen, *made], depth)
            made += filter(None, proto.node[-1].output)
        own = [*made, *seen[len(around) :]]
        for name in self.random.sample(own, min(len(own), 2)):
            self.info(proto.output.add(), name)
        told = [*made, *(tensor.name for tensor in proto.initializer), *seen[:1], "nothing_has_it"]
        for name in self.random.sample(told, self.random.randrange(len(told))):
            self.info(proto.value_info.add(), name)
        for name in self.random.sample(told, self.random.randrange(min(3, len(told)))):
            self.annotation(proto.quantization_annotation.add(), name)
        self.notes(proto)

    def annotation(self, proto: onnx.TensorAnnotation, name: str) -> None:
        """Fill a quantisation annotation."""
        proto.tensor_name = name
        for key in self.shuffled(["ZERO_POINT_TENSOR", "SCALE_TENSOR"]):
            proto.quant_parameter_tensor_names.add(key=key, value="nothing_has_it")

    def node(self, proto: onnx.NodeProto, names: Sequence[str], depth: int) -> None:
        """Fill a node of an operator that nobody knows, with attributes of all kinds."""
        proto.op_type, proto.domain = self.random.choice(["Magic", "ZipMap", "Conv"]), "acme"
        if self.maybe(0.7):
            proto.name = self.random.choice(["", self.name()])
        choices = [*names, ""]
        proto.input.extend(self.random.choice(choices) for _ in range(self.random.randrange(4)))
        proto.output.extend(
            self.random.choice([self.name("y")] * 4 + [""]) for _ in range(self.random.randrange(3))
        )
        for kind in self.random.sample(KINDS, self.random.randrange(5)):
            if depth < 2 or "GRAPH" not in kind:
                self.attribute(proto.attribute.add(), kind, names, depth)
        if self.maybe(0.2):
            sharding = proto.device_configurations.add(
                configuration_id="c", pipeline_stage=1
            ).sharding_spec.add()
            sharding.tensor_name = self.random.choice([*names, "nothing_has_it"])
            sharding.sharded_dim.add(axis=0).simple_sharding.add(dim_value=4, num_shards=2)
        self.notes(proto)

    def attribute(self, proto: AttributeProto, kind: str, names: Sequence[str], depth: int) -> None:
        """Fill an attribute of a kind."""
        proto.name, proto.type = self.name(kind), AttributeProto.AttributeType.Value(kind)
        field = FIELDS[kind]
        if kind.endswith("S"):
            fill = self.part(kind[:-1], names, depth)
            for _ in range(self.random.randrange(3)):
                if kind in ("FLOATS", "INTS", "STRINGS"):
                    getattr(proto, field).append(self.scalar(kind[:-1]))
                else:
                    fill(getattr(proto, field).add())
        elif kind in ("FLOAT", "INT", "STRING"):
            setattr(proto, field, self.scalar(kind))
        else:
            self.part(kind, names, depth)(getattr(proto, field))
        if self.maybe(0.1):
            proto.doc_string = "said"
        if self.maybe(0.1):
            proto.MergeFromString(UNKNOWN)

    def scalar(self, kind: str) -> Any:
        """A value; strings of which some are no text."""
        return self.random.choice(
            [b"", b"text", "\u00e4".encode(), b"\xff\xfe"] if kind == "STRING" else [0, 3]
        )

    def part(self, kind: str, names: Sequence[str], depth: int) -> Callable[[Any], None]:
        """What fills the message in an attribute of a kind."""
        fills: dict[str, Callable[[Any], None]] = {
            "TENSOR": lambda proto: self.tensor(proto, self.random.choice(["", "t"])),
            "GRAPH": lambda proto: self.graph(proto, names, depth + 1),
            "SPARSE_TENSOR": lambda proto: self.sparse(proto, ""),
            "TYPE_PROTO": self.type,
        }
        return fills.get(kind, self.notes)

    def tensor(self, proto: TensorProto, name: str) -> None:
        """Fill a tensor, with bytes or with numbers, small or large enough to stay in the file."""
        if name or self.maybe():
            proto.name = name
        kind = self.random.choice([TensorProto.STRING, *BYTES])
        shape = self.random.choice([[], [0], [3], [2, 3], [40, 60]])
        size = 1
        for extent in shape:
            size *= extent
        proto.data_type = kind
        proto.dims.extend(shape)
        if kind == TensorProto.STRING:
            proto.string_data.extend(self.random.choice([b"", b"cat", b"\xff"]) for _ in range(size))
        elif kind == TensorProto.FLOAT and self.maybe():
            proto.float_data.extend(self.random.random() for _ in range(size))
        elif kind == TensorProto.INT64 and self.maybe():
            proto.int64_data.extend(self.random.randrange(-5, 5) for _ in range(size))
        else:
            data = bytes(size * BYTES[kind]) if self.maybe() else self.random.randbytes(size * BYTES[kind])
            proto.raw_data = bytes(byte & 1 for byte in data) if kind == TensorProto.BOOL else data
        if self.maybe():
            proto.data_location = TensorProto.DEFAULT
        self.notes(proto)

    def sparse(self, proto: onnx.SparseTensorProto, name: str) -> None:
        """Fill a sparse tensor."""
        proto.values.CopyFrom(helper.make_tensor(name, TensorProto.FLOAT, [1], [3.0]))
        proto.indices.CopyFrom(helper.make_tensor("", TensorProto.INT64, [1], [2]))
        proto.dims.append(64)

    def info(self, proto: onnx.ValueInfoProto, name: str) -> None:
        """Fill what is said of a value."""
        proto.name = name
        if self.maybe(0.8):
            self.type(proto.type)
        self.notes(proto)

    def type(self, proto: TypeProto, depth: int = 0) -> None:
        """Fill a type, of nested ones as well; it may be left open."""
        kind = self.random.choice(
            ["tensor", "tensor", "tensor", "sparse", "open", "sequence", "optional", "map"]
        )
        if depth > 2 or kind in ("tensor", "sparse"):
            part = proto.sparse_tensor_type if kind == "sparse" else proto.tensor_type
            part.elem_type = self.random.choice([TensorProto.FLOAT, TensorProto.STRING, TensorProto.INT4])
            if self.maybe(0.7):
                self.shape(part.shape)
        elif kind == "sequence":
            self.type(proto.sequence_type.elem_type, depth + 1)
        elif kind == "optional":
            self.type(proto.optional_type.elem_type, depth + 1)
        elif kind == "map":
            proto.map_type.key_type = TensorProto.INT64
            self.type(proto.map_type.value_type, depth + 1)
        if self.maybe(0.1):
            proto.denotation = self.random.choice(["", "IMAGE"])

    def shape(self, proto: onnx.TensorShapeProto) -> None:
        """Fill a shape; one without axes is a shape too."""
        proto.SetInParent()
        for _ in range(self.random.randrange(4)):
            dim = proto.dim.add()
            match self.random.randrange(4):
                case 0:
                    dim.dim_value = self.random.choice([0, 3, -1])
                case 1:
                    dim.dim_param = self.random.choice(["N", "", "H/2"])
            if self.maybe(0.1):
                dim.denotation = "DATA_BATCH"

    def function(self) -> onnx.FunctionProto:
        """A local function."""
        proto = onnx.FunctionProto(domain="acme", name=self.name("F"))
        if self.maybe():
            proto.overload = "o"
        proto.input.extend(self.name("p") for _ in range(self.random.randrange(3)))
        made: list[str] = []
        for _ in range(2):
            self.node(proto.node.add(), [*proto.input, *made], 1)
            made += filter(None, proto.node[-1].output)
        proto.output.extend(made[:1])
        for name in (*proto.input, *made, "nothing_has_it"):
            if self.maybe():
                self.info(proto.value_info.add(), name)
        proto.attribute.append("open")
        self.attribute(proto.attribute_proto.add(), self.random.choice(KINDS), [], 1)
        proto.node[0].attribute.add(name="r", ref_attr_name="open", type=AttributeProto.INT)
        for domain in self.shuffled(["", "acme"]):
            proto.opset_import.add(domain=domain, version=17)
        self.notes(proto)
        return proto

    def call(self, function: onnx.FunctionProto, graph: onnx.GraphProto) -> None:
        """Call a function."""
        node = graph.node.add(domain=function.domain, op_type=function.name, overload=function.overload)
        node.input.extend("" for _ in function.input)
        node.output.extend(self.name("y") for _ in function.output)

    def notes(self, proto: Any) -> None:
        """Perhaps a text, metadata in any order, and a field of a later version."""
        if self.maybe(0.2):
            proto.doc_string = self.random.choice(["", "said"])
        if self.maybe():
            for key in self.shuffled(["b", "a", "c"]):
                proto.metadata_props.add(key=key, value=self.random.choice(["", "said"]))
        if self.maybe(0.2):
            proto.MergeFromString(UNKNOWN)

    def shuffled(self, entries: list[str]) -> list[str]:
        """In any order."""
        self.random.shuffle(entries)
        return entries
