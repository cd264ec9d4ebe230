"""The records of operators, held against the standard's own schemas."""

from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import pairwise

import onnx
import pytest

from fuser.hosts.onnx.calls import EARLIER, INPUTS, NEWEST_OPSET, OLDEST_OPSET
from fuser.hosts.operators.catalogue import FAMILIES, OPERATORS
from tests.hosts.onnx_models import imported, integers, lift, only, single

Schema = onnx.defs.OpSchema
RENAMED = {("Pad", "value"): "constant_value"}
"""What an attribute is called as an input, where that differs."""


@cache
def versions(kind: str) -> list[Schema]:
    """The schemas of an operator in the operator sets that are known, the oldest first."""
    found = [s for s in onnx.defs.get_all_schemas_with_history() if s.domain == "" and s.name == kind]
    found.sort(key=lambda schema: schema.since_version)
    first = max((s.since_version for s in found if s.since_version <= OLDEST_OPSET), default=0)
    return [s for s in found if first <= s.since_version <= NEWEST_OPSET]


def place(schema: Schema, kind: str, name: str) -> int | None:
    """Which input an attribute of another version is in this one."""
    wanted = RENAMED.get((kind, name), name)
    return next((i for i, given in enumerate(schema.inputs) if given.name == wanted), None)


def moved(kind: str) -> Iterator[tuple[str, int, int]]:
    """The attributes of an operator that became inputs: their name, the input, and the set that did it."""
    history = versions(kind)
    for before, after in pairwise(history):
        for name in before.attributes:
            index = None if name in after.attributes else place(after, kind, name)
            if index is not None:
                yield name, index, after.since_version


def test_an_operator_has_one_record() -> None:
    counts = Counter(operator.kind for family in FAMILIES for operator in family.OPERATORS)
    assert max(counts.values()) == 1, counts.most_common(1)
    assert set(counts) == set(OPERATORS)


@pytest.mark.parametrize("kind", OPERATORS)
def test_a_kind_is_one_of_the_standards(kind: str) -> None:
    """A file may have anything else under any other name, and would be taken for it."""
    assert onnx.defs.has(kind)


@pytest.mark.parametrize("kind", OPERATORS)
def test_attributes_that_became_inputs_are_read_as_such(kind: str) -> None:
    known = INPUTS.get(kind, {})
    for name, index, since in moved(kind):
        assert known[name] == (index, since)


@pytest.mark.parametrize("kind", INPUTS)
def test_what_is_read_as_an_input_is_one(kind: str) -> None:
    history = versions(kind)
    for table in (EARLIER, INPUTS):
        for name, (index, since) in table.get(kind, {}).items():
            schema = [s for s in history if s.since_version <= max(since, history[0].since_version)][-1]
            assert place(schema, kind, name) == index, f"{name} in operator set {since}"
            assert name not in schema.attributes


def test_what_only_torch_has_is_unknown_in_a_file() -> None:
    model = single("Linear", ["x", "w"], given={"x": (2, 3)}, constants={"w": integers(0, 4, 3)})
    assert lift(only(imported(model))) is None
