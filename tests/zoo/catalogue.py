"""Every design, and what of it is still to be done."""

from typing import Final

from tests.zoo import (
    controls,
    dbb,
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
    "traps": traps.CASES,
    "controls": controls.CASES,
}
CASES: Final = tuple(case for cases in FAMILIES.values() for case in cases)

# Designs that are not yet what they must become: what is missing, and from which exporters (all where none is named).
# Each is a failing test that is expected to fail; one that passes must leave this list.
PENDING: Final[dict[str, tuple[str, ...]]] = {}
