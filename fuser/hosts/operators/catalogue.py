"""The records of all operators, by kind. What has none here passes through the compiler as it is."""

from typing import Final

from fuser.hosts.operators import (
    arithmetic,
    borders,
    channels,
    convolutions,
    elementwise,
    layout,
    linear,
    norms,
    reductions,
    shapes,
)
from fuser.hosts.operators.operator import Operator

FAMILIES: Final = (
    arithmetic,
    borders,
    channels,
    convolutions,
    elementwise,
    layout,
    linear,
    norms,
    reductions,
    shapes,
)

OPERATORS: Final[dict[str, Operator]] = {
    operator.kind: operator for family in FAMILIES for operator in family.OPERATORS
}
