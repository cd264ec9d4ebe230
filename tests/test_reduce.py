"""Files cut down to a fault that is planted in the compiler, deep inside of some sixty nodes."""

import json
import os
import signal
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fuser.validate.check
from fuser.algebra.conv import Conv
from fuser.algebra.laws import compose
from fuser.cli import run
from fuser.errors import InputError, OutputError
from fuser.ir.node import Apply, Node
from fuser.ir.ops import Opaque
from fuser.reduce import minimise, reduce_file
from fuser.report.reduction import Reduction
from fuser.rewrite import pattern
from fuser.rewrite.pattern import CLEAN, Candidate, Rewrite, rewrite
from tests.small_models import normal, parsed

Install = Callable[[Rewrite], None]
Plant = Callable[[Callable[[Node], None]], None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Adds a pass, which is tried first."""
    own = pattern.available()
    return lambda entry: monkeypatch.setattr(pattern, "available", lambda: [entry, *own])


@pytest.fixture
def plant(install: Install) -> Plant:
    """Installs a pass that looks at each node and proposes nothing."""

    def planted(look: Callable[[Node], None]) -> None:
        @rewrite(Opaque, stage=CLEAN)
        def fault(node: Node) -> Iterator[Candidate]:
            """x -> x."""
            look(node)
            yield from ()

        install(fault)

    return planted


def maker_of(node: Node) -> Node | None:
    """What makes the first input."""
    read = node.inputs[0] if node.inputs else None
    return read.producer if read else None


def is_gate(node: Node) -> bool:
    """Whether this is a Sigmoid of a convolution."""
    maker = maker_of(node)
    return str(node.op) == "Sigmoid" and maker is not None and maker.label == "conv"


def fail(node: Node, error: Exception) -> None:
    if is_gate(node):
        raise error


def network(gate: str = "g = Sigmoid (c1) y = Mul (c1, g)", blocks: int = 19) -> onnx.ModelProto:
    """Residual blocks of a convolution and a BatchNorm, with a gate in their midst as the second output."""
    text = f"g (float[N,8,H,W] x0) => (float[N,8,H,W] x{blocks}, float[N,8,H,W] y) {{"
    weights = {f"w{k}": normal(8, 8, 1, 1, seed=k) / 8 for k in range(blocks)}
    weights |= {"s": np.linspace(0.5, 1.5, 8), "b": normal(8), "v": np.linspace(0.5, 2, 8)}
    for k in range(blocks):
        text += f"c{k} = Conv (x{k}, w{k}) n{k} = BatchNormalization (c{k}, s, b, b, v)"
        text += f"x{k + 1} = Add (n{k}, x{k})" if k % 2 else f"x{k + 1} = Relu (n{k})"
    return parsed(f"{text} {gate} }}", **weights)


def reduced(model: onnx.ModelProto, folder: Path, **options: Any) -> tuple[Reduction, onnx.ModelProto]:
    """What is said, and what is left: a valid model that has as many nodes as is said."""
    onnx.save(model, folder / "in.onnx")
    result = reduce_file(folder / "in.onnx", folder / "out.onnx", **options)
    left = onnx.load(folder / "out.onnx")
    onnx.checker.check_model(left, full_check=True)
    assert result.nodes_before > result.nodes
    return result, left


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


# --- what may be wrong -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["crashes", "refuses"])
def test_an_exception_in_a_pass(plant: Plant, tmp_path: Path, kind: str) -> None:
    error = KeyError("planted") if kind == "crashes" else InputError("planted")
    plant(lambda node: fail(node, error))
    result, left = reduced(network(), tmp_path)
    assert result.nodes_before == 59
    assert (result.kind, result.passes) == (kind, ("fault",))
    assert f"{type(error).__name__}: {error}" in result.fault
    assert "tests.test_reduce in fail" in result.fault
    assert kinds(left) == ["Conv", "Sigmoid"]
    assert list(left.graph.initializer[0].dims) == [2, 2, 1, 1]
    assert len(left.SerializeToString()) < 200
    assert kinds(onnx.parser.parse_model(result.model)) == kinds(left)


def test_the_process_ends(plant: Plant, tmp_path: Path) -> None:
    plant(lambda node: os.kill(os.getpid(), signal.SIGKILL) if is_gate(node) else None)
    result, left = reduced(network(blocks=3), tmp_path, because="crashes")
    assert result.fault == "the process ends by SIGKILL"
    assert kinds(left) == ["Conv", "Sigmoid"]


def test_there_is_no_end(plant: Plant, tmp_path: Path) -> None:
    plant(lambda node: time.sleep(60) if is_gate(node) else None)
    model = parsed(
        "g (float[2,2,5] x) => (float[2,2,5] y) { r = Relu (x) c = Conv (r, w) g = Sigmoid (c) y = Neg (g) }",
        w=np.ones((2, 2, 1)),
    )
    result, left = reduced(model, tmp_path, seconds=1.5, passes=["fault"])
    assert result.fault == "it does not end within 1.5 seconds"
    assert kinds(left) == ["Conv", "Sigmoid"]


def test_a_wrong_rule_makes_a_wrong_result(
    install: Install, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    @rewrite(Conv, stage=CLEAN)
    def wrong(node: Node) -> Iterator[Candidate]:
        """norm(conv(x))  ->  conv'(x) + 1."""
        maker = maker_of(node)
        if node.label == "batch_norm" and maker is not None and isinstance(maker.op, Conv):
            assert isinstance(node.op, Conv)
            assert maker.inputs[0] is not None
            yield Apply(compose(replace(node.op, bias=node.op.bias + 1.0), maker.op), (maker.inputs[0],))

    install(wrong)
    # The compiler does not look at what it has made; only the verification does.
    monkeypatch.setattr(fuser.validate.check, "compare", lambda *_, **__: None)
    result, left = reduced(network(), tmp_path, because="differs")
    assert result.passes == ("wrong",)
    assert kinds(left) == ["Conv", "BatchNormalization"]


def test_what_is_unknown_cannot_be_proved(tmp_path: Path) -> None:
    model = network("m = acme.Magic <strength = 3> (c1) k = Sigmoid (m) y = Neg (k)")
    model.opset_import.add(domain="acme", version=1)
    result, left = reduced(model, tmp_path)
    assert (result.kind, result.passes) == ("unproven", ())
    assert kinds(left) == ["Magic", "Sigmoid"]  # it is said of what is behind


def test_the_fault_stays_the_same(plant: Plant, tmp_path: Path) -> None:
    """One of another kind, or from another place, is another one."""

    def look(node: Node) -> None:
        if str(node.op) == "Tanh":
            raise KeyError("another")
        if str(node.op) == "Mul":
            raise ValueError("too")
        fail(node, KeyError("planted"))

    plant(look)
    gates = "g = Sigmoid (c1) h = Mul (g, g) y = Tanh (h)"
    result, left = reduced(network(gates, blocks=3), tmp_path)
    assert result.fault.startswith("KeyError: 'planted'")
    assert kinds(left) == ["Conv", "Sigmoid"]


# --- what has nodes inside ---------------------------------------------------------------------------------

BRANCHES = """c = Constant <value_int = 1> () d = Cast <to = 9> (c)
    y = If (d) <
        then_branch = t () => (float[N,8,H,W] t1) {
            p = Conv (x1, w1) q = Sigmoid (p) r = Exp (q) t1 = Neg (r)
        },
        else_branch = e () => (float[N,8,H,W] e1) { o = Neg (x1) e1 = Abs (o) }>"""


def test_a_fault_in_a_body_is_taken_out_of_it(plant: Plant, tmp_path: Path) -> None:
    plant(lambda node: fail(node, KeyError("planted")))
    assert kinds(reduced(network(BRANCHES, blocks=3), tmp_path)[1]) == ["Conv", "Sigmoid"]


def test_a_fault_of_control_flow_keeps_it(plant: Plant, tmp_path: Path) -> None:
    def look(node: Node) -> None:
        if str(node.op) == "If":
            raise KeyError("planted")

    plant(look)
    result, left = reduced(network(BRANCHES, blocks=3), tmp_path)
    assert (kinds(left), result.nodes) == (["If"], 3)


def called(body: str) -> onnx.ModelProto:
    """The network with a function as its gate."""
    model = network("y = own.gate (x1)", blocks=3)
    function = f'<domain: "own", opset_import: ["": 17]> gate (x) => (y) {{ {body} }}'
    whole = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": 17]> g () => () {{}} {function}')
    model.functions.extend(whole.functions)
    model.opset_import.add(domain="own", version=1)
    return model


def test_a_fault_in_a_function_is_taken_out_of_it(plant: Plant, tmp_path: Path) -> None:
    def look(node: Node) -> None:
        if str(node.op) == "Sigmoid":
            raise KeyError("planted")

    plant(look)
    left = reduced(called("a = Exp (x) b = Sigmoid (a) c = Neg (b) y = Abs (c)"), tmp_path)[1]
    assert (kinds(left), len(left.functions)) == (["Sigmoid"], 0)


def test_a_fault_of_functions_keeps_them(plant: Plant, tmp_path: Path) -> None:
    def look(node: Node) -> None:
        if str(node.op) == "own::gate":
            raise KeyError("planted")

    plant(look)
    result, left = reduced(called("a = Exp (x) b = Sigmoid (a) c = Neg (b) y = Abs (c)"), tmp_path)
    assert (kinds(left), result.nodes) == (["gate"], 2)


# --- how it is asked for -----------------------------------------------------------------------------------


@given(st.integers(1, 60), st.data())
def test_what_the_fault_needs_is_left(number: int, data: st.DataObject) -> None:
    needed = data.draw(st.sets(st.integers(0, number - 1), max_size=4))
    asked: list[Collection[int]] = []
    gone: set[int] = set()

    def shows(parts: Collection[int]) -> bool:
        asked.append(parts)
        if needed.isdisjoint(parts):
            gone.update(parts)
            return True
        return False

    minimise(range(number), shows)
    assert gone == set(range(number)) - needed
    assert len(asked) <= 2 + 2 * (len(needed) + 1) * (number.bit_length() + 1)


def test_when_stopped_the_smallest_is_there(plant: Plant, tmp_path: Path) -> None:
    def stop(line: str) -> None:
        if "cut off" in line:
            raise KeyboardInterrupt

    plant(lambda node: fail(node, KeyError("planted")))
    with pytest.raises(KeyboardInterrupt):
        reduced(network(blocks=3), tmp_path, tell=stop)
    assert len(onnx.load(tmp_path / "out.onnx").graph.node) < 11


def test_the_command_tells_what_it_does(
    plant: Plant, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(lambda node: fail(node, KeyError("planted")))
    onnx.save(network(blocks=3), tmp_path / "in.onnx")
    arguments = ["reduce", str(tmp_path / "in.onnx"), "-o", str(tmp_path / "out.onnx")]
    assert run([*arguments, "--json", str(tmp_path / "report.json")]) == 0
    said = capsys.readouterr()
    assert "crashes: KeyError: 'planted'" in said.err
    assert "nodes cut off" in said.err
    for text in ("fault     crashes: KeyError", "nodes     11 -> 2", "passes    fault;", "Sigmoid (c1)"):
        assert text in said.out
    assert json.loads((tmp_path / "report.json").read_text())["nodes"] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "nothing of ours is wrong with it: it is optimized, and proved right"),
        (["--because", "vanishes"], "nothing is wrong with a file that 'vanishes'; it crashes or refuses or"),
        (["--passes", "none"], "no pass is called 'none'"),
    ],
)
def test_what_cannot_be_reduced_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    onnx.save(network(blocks=3), tmp_path / "in.onnx")
    assert run(["reduce", str(tmp_path / "in.onnx"), "-o", str(tmp_path / "out.onnx"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.onnx").exists()


def test_what_is_wrong_is_asked_for(plant: Plant, tmp_path: Path) -> None:
    plant(lambda node: fail(node, KeyError("planted")))
    with pytest.raises(InputError, match="is not reduced because it differs, for it crashes: KeyError"):
        reduced(network(blocks=3), tmp_path, because="differs")


def test_other_files_are_refused(tmp_path: Path) -> None:
    onnx.save(parsed("g (float[2] x) => (float[2] y) { y = Neg (x) y = Abs (x) }"), tmp_path / "a.onnx")
    refused = partial(reduce_file, tmp_path / "a.onnx")
    with pytest.raises(
        InputError, match=r"nothing of ours is wrong with it: the file is invalid: .*single static"
    ):
        refused(tmp_path / "b.onnx")
    with pytest.raises(OutputError, match=r"what is left .* is also the path of a model"):
        refused(tmp_path / "a.onnx")
    with pytest.raises(InputError, match="only ONNX files are reduced"):
        reduce_file("a.pt2", tmp_path / "b.onnx")
    with pytest.raises(InputError, match="no such file"):
        reduce_file(tmp_path / "c.onnx", tmp_path / "b.onnx")
