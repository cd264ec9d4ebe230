"""Every design, and what of it is still to be done."""

from typing import Final

import pytest

from tests.zoo import (
    controls,
    dbb,
    invented,
    large_kernel,
    linear,
    low_rank,
    mobile,
    repvgg,
    super_resolution,
    traps,
    weight_space,
    yolo,
)

FAMILIES: Final = {
    "RepVGG": repvgg.CASES,
    "mobile": mobile.CASES,
    "large kernels": large_kernel.CASES,
    "diverse branches": dbb.CASES,
    "super-resolution": super_resolution.CASES,
    "YOLO": yolo.CASES,
    "low rank": low_rank.CASES,
    "linear": linear.CASES,
    "weight space": weight_space.CASES,
    "invented": invented.CASES,
    "traps": traps.CASES,
    "controls": controls.CASES,
}
CASES: Final = tuple(case for cases in FAMILIES.values() for case in cases)

# What is still missing, and the designs that wait for it, from the exporters named (all where none is). Each
# is a test that is expected to fail: one that passes must leave this list.
MISSING: Final[dict[str, dict[str, tuple[str, ...]]]] = {}
PENDING: Final = {name: (reason, where) for reason, cases in MISSING.items() for name, where in cases.items()}


def pending(name: str, exporter: str = "") -> list[pytest.MarkDecorator]:
    """The mark of a test that is expected to fail, if it is."""
    reason, exporters = PENDING.get(name, ("", ()))
    if not reason or (exporters and exporter not in exporters):
        return []
    return [pytest.mark.xfail(reason=reason, raises=AssertionError, strict=True)]
