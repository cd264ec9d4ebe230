"""Lifting of one call: when the rule of its record may be asked, and for which element types."""

from dataclasses import dataclass

from fuser.errors import Declined, require
from fuser.hosts.operators.call import NOTHING
from fuser.hosts.operators.operator import LiftRule, all_known
from fuser.hosts.torch.call import Bound
from fuser.hosts.torch.own import OPERATORS, is_only_computed_with
from fuser.ir.constant import FLOATS, Constant
from fuser.ir.node import Apply, Lift, Node, Value

COPIES = frozenset({"clone", "contiguous"})


@dataclass(frozen=True, eq=False)
class Lifting:
    """Lifts one call. Torch promotes: operands may have several types, and the result another one."""

    bound: Bound
    rule: LiftRule
    floating: bool

    def __call__(self, node: Node) -> Apply | Constant | None:
        """The affine form of `node`, None if it has none.

        Raises:
            Declined: it is affine in principle, but a condition fails.
        """
        if all_known(node):
            return None
        lifted = self.rule(self.bound.call, node)
        if not isinstance(lifted, Apply):
            return lifted
        terms = [value for value in lifted.inputs if isinstance(value, Value)]
        if not self.floating and lifted.op == NOTHING and None in {terms[0].dtype, node.outputs[0].dtype}:
            # What returns a tensor returns its type.
            return lifted
        return lifted if self._typed(terms, node.outputs[0]) else None

    def _typed(self, terms: list[Value], output: Value) -> bool:
        """Whether all is of one element type, a floating one where that is asked for."""
        x, *others = terms
        if not self.floating:
            return all(term.dtype == output.dtype for term in terms)
        if x.dtype is not None and x.dtype not in FLOATS:
            return False
        for other in others:
            require(x.dtype == other.dtype, f"element types differ: {x.dtype} and {other.dtype}")
        require(x.dtype is not None, f"the element type of {x.name!r} is not known")
        require(x.dtype == output.dtype, f"the element type changes from {x.dtype} to {output.dtype}")
        return True


def lifter(bound: Bound) -> Lift | None:
    """What lifts the call; None where it is never affine."""
    if bound.call.refusal:
        return refuse(bound.call.refusal)
    operator = OPERATORS.get(bound.kind)
    if operator is None or operator.lift is None:
        return None
    return Lifting(bound, operator.lift, operator.floating)


def is_handed_on(copy: Node) -> bool:
    """Whether somebody gets hold of a copy, which must stay one then."""
    return not is_only_computed_with(copy)


def refuse(reason: str) -> Lift:
    """What declines every time, unless all is known."""

    def decline(node: Node) -> Apply | None:
        if all_known(node):
            return None
        raise Declined(reason)

    return decline
