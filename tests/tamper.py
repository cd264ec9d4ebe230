"""Results that somebody tampered with: ``python -m tests.tamper [COUNT] [FIRST SEED]``.

Random networks are optimized with a certificate, then one thing in the result is changed: a weight by a
millionth of its tensor's largest, a bias, a pad, a stride, a dilation, a group, two inputs, a node, an
attribute. The certificate must refuse each, and the proof must do so by itself too, the certificate being
forged to state the digest of the tampered file; and it must accept every result that is as it was.
"""

import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

import fuser
from fuser.errors import InputError, VerificationError
from fuser.hosts.blame import blaming
from fuser.hosts.onnx.certificate import certificate
from tests.fuzz.networks import Network

Change = Callable[[onnx.ModelProto, np.random.Generator], bool]


@dataclass
class Tally:
    """What became of the tampered results, by kind, and how many that are as they were passed."""

    tampered: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    disproved: Counter[str] = field(default_factory=Counter)
    whole: int = 0
    accepted: int = 0
    unproved: int = 0


def weight(model: onnx.ModelProto, random: np.random.Generator, *, bias: bool = False) -> bool:
    """One element of a tensor that is read, by a millionth of the largest there or one step of its type."""
    read = {name for node in model.graph.node for name in node.input}
    tensors = [
        t
        for t in model.graph.initializer
        if t.name in read
        and t.data_type == 1
        and (len(t.dims) == 1) == bias
        and numpy_helper.to_array(t).any()
    ]
    if not tensors:
        return False
    tensor = tensors[int(random.integers(len(tensors)))]
    array = numpy_helper.to_array(tensor).copy()
    flat = array.reshape(-1)
    at = int(random.choice(np.flatnonzero(flat)))
    step = np.float32(max(1e-6 * np.abs(flat).max(), np.spacing(np.abs(flat[at]))))
    flat[at] += step * random.choice([-1, 1])
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return True


def attribute(name: str, change: Callable[[int], int]) -> Change:
    """One number of an attribute of one node."""

    def tamper(model: onnx.ModelProto, random: np.random.Generator) -> bool:
        found = [entry for node in model.graph.node for entry in node.attribute if entry.name == name]
        if not found:
            return False
        entry = found[int(random.integers(len(found)))]
        if entry.type == onnx.AttributeProto.INT:
            entry.i = change(entry.i)
        elif entry.type == onnx.AttributeProto.FLOAT:
            entry.f *= 1.001
        else:
            at = int(random.integers(len(entry.ints)))
            entry.ints[at] = change(entry.ints[at])
        return True

    return tamper


def dilation(model: onnx.ModelProto, random: np.random.Generator) -> bool:
    """The dilation of an axis on which a kernel has several taps: with one tap it means nothing."""
    sizes = {tensor.name: tensor.dims[2:] for tensor in model.graph.initializer}
    found: list[tuple[onnx.AttributeProto, int]] = []
    for node in model.graph.node:
        stated = {entry.name: entry for entry in node.attribute}
        if "dilations" in stated:
            own = stated["kernel_shape"].ints if "kernel_shape" in stated else sizes.get(node.input[1], ())
            found.extend((stated["dilations"], axis) for axis, taps in enumerate(own) if taps > 1)
    if not found:
        return False
    entry, axis = found[int(random.integers(len(found)))]
    entry.ints[axis] += 1
    return True


def swapped(model: onnx.ModelProto, random: np.random.Generator) -> bool:
    """Two inputs of a Sub or Concat."""
    nodes = [n for n in model.graph.node if n.op_type in {"Sub", "Concat"} and n.input[0] != n.input[1]]
    if not nodes:
        return False
    node = nodes[int(random.integers(len(nodes)))]
    node.input[0], node.input[1] = node.input[1], node.input[0]
    return True


def removed(model: onnx.ModelProto, random: np.random.Generator) -> bool:
    """A node: what read it reads what it read."""
    made = {name for node in model.graph.node for name in node.output}
    inner = {v.name for v in model.graph.output}
    read = {name for node in model.graph.node for name in node.input} - inner
    nodes = [n for n in model.graph.node if n.output[0] in read and n.op_type != "Identity"]
    if not nodes:
        return False
    node = nodes[int(random.integers(len(nodes)))]
    source = next((n for n in node.input if n in made), "x")
    for other in model.graph.node:
        for index, name in enumerate(other.input):
            if name == node.output[0]:
                other.input[index] = source
    model.graph.node.remove(node)
    return True


def operator(model: onnx.ModelProto, random: np.random.Generator) -> bool:
    """An operator that is another."""
    other = {"Relu": "Sigmoid", "Sigmoid": "Tanh", "Add": "Sub", "Sub": "Add", "MaxPool": "AveragePool"}
    nodes = [node for node in model.graph.node if node.op_type in other]
    if not nodes:
        return False
    node = nodes[int(random.integers(len(nodes)))]
    node.op_type = other[node.op_type]
    return True


CHANGES: dict[str, Change] = {
    "weight": weight,
    "bias": lambda model, random: weight(model, random, bias=True),
    "pad": attribute("pads", lambda n: n + 1),
    "stride": attribute("strides", lambda n: n + 1),
    "dilation": dilation,
    "group": attribute("group", lambda n: n + 1),
    "axis": attribute("axis", lambda n: n + 1),
    "kernel": attribute("kernel_shape", lambda n: n + 1),
    "inputs": swapped,
    "node": removed,
    "operator": operator,
}


def holds(original: Path, result: Path, path: Path) -> bool:
    """Whether the certificate does."""
    try:
        with blaming(original, result):
            certificate.check(original, result, path)
    except (InputError, VerificationError):
        return False
    return True


def forged(path: Path, result: Path) -> Path:
    """The certificate with the digest of another result."""
    stated = json.loads(path.read_text(encoding="utf-8"))
    stated["result"] = certificate.digest(result)
    other = path.with_name("forged.json")
    other.write_text(json.dumps(stated), encoding="utf-8")
    return other


def optimized(folder: Path, first: int) -> Iterator[tuple[int, Path, Path, Path] | None]:
    """Networks with their results and certificates; None for one whose certificate cannot be had."""
    original, result, path = (folder / name for name in ("a.onnx", "b.onnx", "b.json"))
    for seed in range(first, 1 << 31):
        onnx.save(Network(seed).proto, original)
        try:
            report = fuser.optimize_file(original, result, verify=False, certificate=path)
        except VerificationError:
            yield None
            continue
        if report.applied:
            yield seed, original, result, path


def tampered(count: int, first: int = 0) -> Tally:
    """`count` tampered results, one of each kind of each network that has it."""
    tally = Tally()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for found in optimized(folder, first):
            if found is None:
                tally.unproved += 1
                continue
            seed, original, result, path = found
            tally.whole += 1
            tally.accepted += holds(original, result, path)
            for kind, change in CHANGES.items():
                model = onnx.load(result)
                if not change(model, np.random.default_rng(seed)):
                    continue
                other = folder / "tampered.onnx"
                onnx.save(model, other)
                tally.tampered[kind] += 1
                tally.refused[kind] += not holds(original, other, path)
                tally.disproved[kind] += not holds(original, other, forged(path, other))
                if tally.tampered.total() == count:
                    return tally
    return tally


def main() -> int:
    """The command."""
    count, first = (*map(int, sys.argv[1:3]), *(200, 0)[len(sys.argv) - 1 :])
    tally = tampered(count, first)
    print(f"as they were: {tally.accepted} of {tally.whole} accepted; no certificate: {tally.unproved}")
    for kind, total in (*tally.tampered.items(), ("all", tally.tampered.total())):
        refused, alone = ((c.total() if kind == "all" else c[kind]) for c in (tally.refused, tally.disproved))
        print(f"{kind:10} {refused:4} of {total:4} refused, {alone:4} by the proof alone")
    return int(tally.refused.total() < tally.tampered.total() or tally.accepted < tally.whole)


if __name__ == "__main__":
    sys.exit(main())
