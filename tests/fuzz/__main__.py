"""Random networks through the compiler: ``python -m tests.fuzz [COUNT] [FIRST SEED]``.

Nothing of what makes a design is kept: kernels and branches meet in any order, with zeros among their
weights, several readers and outputs, and no-ops in between; beside them literal numbers on symbolic axes,
control flow, functions, strings, sequences, optional values, float16 and float64. What comes out has to
compute the same in onnxruntime at extents on both sides of every number, be valid, look the same from
outside, be left alone by a second run, and be taken for right by the verification.
"""

import sys
from collections import Counter

from tests.fuzz.check import check
from tests.fuzz.judge import NotRunnable


def main(count: int = 1000, first: int = 0) -> int:
    """Try networks; exit status 1 if one fails."""
    found: Counter[str] = Counter()
    removed = before = skipped = 0
    for seed in range(first, first + count):
        try:
            outcome = check(seed)
        except NotRunnable as reason:
            skipped += 1
            print(f"seed {seed}: not tried: {reason}", flush=True)
            continue
        before, removed = before + outcome.before, removed + outcome.removed
        for fault in outcome.faults:
            found[fault.split(":")[0]] += 1
            print(f"seed {seed}: {fault}", flush=True)
    listed = ", ".join(f"{number} {kind}" for kind, number in found.most_common()) or "no faults"
    print(f"{count} networks, {skipped} not tried, {removed} of {before} nodes removed: {listed}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
