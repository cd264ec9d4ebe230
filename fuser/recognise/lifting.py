"""What a node is as an affine operator, in two stages: by the rule of its host, then by what it computes.

First every node is lifted by itself, where that tells what it is. Then the neighbours tell the rest: whether
the last axis is that of a linear layer's channels, and which regions are one convolution.
"""

from fuser.errors import Declined
from fuser.ir.constant import Constant
from fuser.ir.node import Apply, Node
from fuser.ir.ops import Opaque, operation
from fuser.ir.provenance import Provenance
from fuser.recognise.region import Regions, among_images

Lifted = Apply | Constant | None


class Lifting:
    """Lifts the nodes of one graph. Both stages say None where there is no affine form (yet).

    Either raises `Declined` where there is one in principle.
    """

    def __init__(self, provenance: Provenance) -> None:
        self.regions = Regions(provenance)

    def by_rule(self, node: Node) -> Lifted:
        """The first stage: what the node is by itself."""
        lifted = _ruled(node)
        return None if _open(node, lifted) else lifted

    def by_meaning(self, node: Node) -> Lifted:
        """The second stage, and whenever something has changed: what the node is among its neighbours."""
        refused: Declined | None = None
        try:
            lifted = _ruled(node)
        except Declined as reason:
            lifted, refused = None, reason
        if _held(node) or not (_open(node, lifted) or lifted is None):
            found = lifted
        else:
            try:
                found = self._meaning(node, lifted)
            except Declined as reason:
                found, refused = None, refused or reason
        if found is None and refused is not None:
            raise refused
        return found

    def _meaning(self, node: Node, lifted: Lifted) -> Lifted:
        """What the node and those before it compute, or what it is by itself where that is all."""
        if not operation(node.op).linear:
            return lifted
        if not isinstance(lifted, Apply):
            return self.regions.lift(node)
        if operation(lifted.op).ambiguous:
            return self.regions.lift(node) if among_images(node) else lifted
        # Only another shape, unless it closes a region.
        return (self.regions.lift(node) if self.regions.goes_on(node) else None) or lifted


def _held(node: Node) -> bool:
    return isinstance(node.op, Opaque) and node.op.stays is not None and node.op.stays(node)


def _ruled(node: Node) -> Lifted:
    """What the host's rule makes of the node."""
    if not isinstance(node.op, Opaque) or node.op.lift is None or _held(node):
        return None
    lifted: Lifted = node.op.lift(node)
    return lifted


def _open(node: Node, lifted: Lifted) -> bool:
    """Whether the rule does not say it all, and the neighbours tell the rest once they are lifted."""
    if not isinstance(lifted, Apply) or not operation(node.op).linear:
        return False
    return operation(lifted.op).ambiguous or operation(lifted.op).rigid
