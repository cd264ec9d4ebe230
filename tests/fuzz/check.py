"""One network through the compiler, twice."""

import traceback
from dataclasses import dataclass

import fuser
from fuser.errors import VerificationError
from tests.fuzz.judge import faults
from tests.fuzz.networks import Network

VERIFIED = 4
"""Of so many networks one is also verified by the compiler itself, which must not refuse what is right."""


@dataclass(frozen=True)
class Outcome:
    """What became of a network: nodes before, nodes removed, and a sentence for each kind of fault."""

    before: int
    removed: int
    faults: tuple[str, ...]


def check(seed: int) -> Outcome:
    """Put the network of a seed through the compiler.

    Raises:
        NotRunnable: the runtime does not take the network itself.
    """
    network = Network(seed)
    source = network.proto
    before = len(source.graph.node)
    kept = source.SerializeToString(deterministic=True)
    try:
        result = fuser.optimize(source, verify=seed % VERIFIED == 0)
        again = fuser.optimize(result)
    except VerificationError as error:
        return Outcome(before, 0, (f"refused: {' '.join(str(error).split())[:300]}",))
    except Exception as error:  # noqa: BLE001  # whatever it is, it is the finding
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{where.filename.rpartition('/')[2]}:{where.lineno}"
        return Outcome(before, 0, (f"crash: {type(error).__name__} at {place}: {str(error)[:200]}",))
    if source.SerializeToString(deterministic=True) != kept:
        return Outcome(before, 0, ("source changed: optimize edits what it is given",))
    found = list(faults(source, result, list(network.feeds()), network.coarse))
    if again.SerializeToString(deterministic=True) != result.SerializeToString(deterministic=True):
        found.append(f"second run: {len(result.graph.node)} nodes become {len(again.graph.node)}")
    kinds = {fault.split(":")[0]: fault for fault in reversed(found)}
    return Outcome(before, before - len(result.graph.node), tuple(kinds.values()))
