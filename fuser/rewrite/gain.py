"""What a rewrite makes superfluous, and whether that is worth more than what it adds."""

from collections.abc import Iterable, Mapping, Sequence

from fuser.errors import Declined, require
from fuser.ir.constant import Constant
from fuser.ir.graph import Host
from fuser.ir.node import Node, Value
from fuser.ir.ops import Op, operation
from fuser.rewrite.cost import Cost, operator_cost
from fuser.rewrite.pattern import describe


class Postponed(Declined):
    """A rewrite that pays, and is to wait for those that might spare it."""


def dead_set(roots: Sequence[Node], kept: set[Value]) -> list[Node]:
    """What nobody needs once `roots` are replaced by something that reads `kept`, in graph order."""
    gone = dict.fromkeys(roots)
    stack = list(roots)
    while stack:
        for value in (*(v for v in stack[-1].inputs if v), *stack.pop().parameters):
            maker = value.producer
            if maker is None or maker in gone:
                continue
            if all(_unneeded(output, gone, kept) for output in maker.outputs):
                gone[maker] = None
                stack.append(maker)
    return sorted(gone, key=lambda node: node.position)


def _unneeded(value: Value, gone: Mapping[Node, None], kept: set[Value]) -> bool:
    return value not in kept and not value.is_output and all(u in gone for u in value.users)


def freed(gone: Sequence[Node]) -> list[Constant]:
    """The stored constants, initializers and Constant nodes, that only `gone` reads."""
    read = dict.fromkeys(v for node in gone for v in (*node.inputs, *node.parameters) if v is not None)
    members = set(gone)
    return [
        value.constant
        for value in read
        if value.constant is not None
        and (value.producer is None or not value.producer.inputs)
        and members.issuperset(value.users)
    ]


def require_gain(
    host: Host, parts: Sequence[tuple[Op, Value]], gone: Sequence[Node], kept: set[Value], *, patient: bool
) -> None:
    """Whether `parts`, operators and what they make of `kept`, cost less than `gone`.

    Raises:
        Declined: they do not, with both amounts.
        Postponed: they do, but what others read of `gone` would be computed twice; only if `patient`.
    """
    # What makes a constant costs nothing when the model runs.
    before = [
        operator_cost(node.op, node.outputs[0], _kernels(host, node))
        for node in gone
        if node.outputs[0].constant is None
    ]
    # What returns what it is given is forwarded next.
    after = [
        operator_cost(op, result, host.kernels(op, result))
        for op, result in parts
        if not operation(op).neutral
    ]
    seconds = sum(cost.seconds for cost in after), sum(cost.seconds for cost in before)
    survivors = _survivors(gone, kept)
    # What survives would be computed twice. That elementwise work is saved by it is no reason: a runtime
    # does such work along with the convolution before it.
    work = sum(cost.multiply_adds for cost in after), sum(cost.multiply_adds for cost in before)
    gain = seconds[0] < seconds[1] * (1 - 1e-9) and (not survivors or work[0] <= work[1])
    require(gain, f"no gain: {_amount(after)} instead of {_amount(before)}{survivors}")
    if survivors and patient:
        raise Postponed(survivors)


def _kernels(host: Host, node: Node) -> int:
    """A node of the source is one operator of the host, which takes no kernel if it makes a view."""
    if node.source is not None and not operation(node.op).view:
        return 1
    return host.kernels(node.op, node.outputs[0])


def _survivors(gone: Sequence[Node], kept: set[Value]) -> str:
    """Who keeps alive what would otherwise have vanished, for the reason of a refusal."""
    members = set(gone)
    read = dict.fromkeys(v for node in gone for v in node.inputs if v is not None and v not in kept)
    for value in read:
        others = [describe(user) for user in value.users if user not in members]
        others += ["the graph output"] * value.is_output
        if value.producer is not None and value.producer not in members and others:
            return f"; {value.name!r} is also read by {', '.join(others[:3])}"
    return ""


def _amount(costs: Sequence[Cost]) -> str:
    total = sum(costs, start=Cost())
    return f"{total.multiply_adds:.3g} multiply-adds, {total.bytes:.3g} bytes, {total.kernels} kernels"


def stored_bytes(constant: Constant) -> int:
    """Bytes of a constant in a file."""
    return constant.size * item_bytes(constant.dtype)


def item_bytes(dtype: str | None) -> int:
    """Bytes of one number of a type; float32 where it is not known."""
    digits = "".join(c for c in dtype or "float32" if c.isdigit())
    return max(1, int(digits or 8) // 8)


def kept_bytes(values: Iterable[Value]) -> int:
    """Bytes of what constants are computed from in a file, or of themselves where they are stored."""
    stack = list(values)
    found, seen = 0, set(stack)
    while stack:
        part = stack.pop()
        maker = part.producer
        if maker is None or not maker.inputs:
            found += 0 if part.constant is None else stored_bytes(part.constant)
            continue
        fresh = [v for v in (*maker.inputs, *maker.parameters) if v is not None and v not in seen]
        seen.update(fresh)
        stack.extend(fresh)
    return found


def is_spread(value: Value) -> bool:
    """Whether a constant is only given another type, scaled or repeated: work that a small file is worth."""
    stack = [value]
    while stack:
        maker = stack.pop().producer
        if maker is None or not maker.inputs:
            continue
        op = operation(maker.op)
        if not (op.elementwise or op.retypes or op.repeats or not op.foldable):
            return False
        stack.extend(v for v in maker.inputs if v is not None)
    return True
