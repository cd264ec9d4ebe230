"""Bytes that are no protobuf."""

import pytest

from fuser.hosts.onnx_wire import Damaged, skeleton


def test_a_number_that_does_not_end() -> None:
    with pytest.raises(Damaged, match="a number of more than 64 bits ends at byte 11"):
        skeleton(memoryview(b"\x08" + b"\xff" * 20))
