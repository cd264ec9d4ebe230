"""Every design."""

from typing import Final

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
