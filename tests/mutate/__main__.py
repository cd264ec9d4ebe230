"""Mutated files through the command: ``python -m tests.mutate [COUNT] [FIRST SEED]``.

Whatever is in a file, it is optimized, or refused in one sentence: no traceback, no crash, at most ten
seconds and two gigabytes; and what is written is valid and computes what the source computes. A process takes
one mutant after the other; when it dies or does not answer, another one goes on with the next.
"""

import json
import multiprocessing
import sys
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from tests.mutate.trial import SECONDS, Outcome, attempt, limit

PATIENCE = 6 * SECONDS
"""A process that has not answered for so long is ended."""


def outcomes(first: int, last: int) -> Iterator[tuple[int, Outcome]]:
    """What becomes of each mutant."""
    context = multiprocessing.get_context("fork")
    seed = first
    while seed < last:
        ours, theirs = context.Pipe(duplex=False)
        worker = context.Process(target=_work, args=(seed, last, theirs), daemon=True)
        worker.start()
        theirs.close()
        while seed < last:
            answer = _answer(ours, worker)
            yield seed, answer
            seed += 1
            if not answer.kind.isalpha() or answer.kind in {"hang", "crash"}:
                break
        worker.kill()
        worker.join()
        ours.close()


def _answer(ours: Connection, worker: BaseProcess) -> Outcome:
    if not ours.poll(PATIENCE):
        return Outcome("hang", f"no answer after {PATIENCE:g} seconds", PATIENCE)
    try:
        return Outcome(*json.loads(ours.recv()))
    except EOFError:
        worker.join()
        return Outcome("crash", f"the process ended with {worker.exitcode}")


def _work(first: int, last: int, theirs: Connection) -> None:
    """Take mutants, one after the other."""
    limit()
    for seed in range(first, last):
        theirs.send(json.dumps(attempt(seed)))


def main(count: int = 1000, first: int = 0) -> int:
    """Try mutants; exit status 1 if there is a fault."""
    found: Counter[str] = Counter()
    slowest, largest = 0.0, 0
    faulty = False
    for seed, outcome in outcomes(first, first + count):
        found[outcome.kind] += 1
        slowest, largest = max(slowest, outcome.seconds), max(largest, outcome.memory)
        if outcome.fault:
            faulty = True
            print(f"seed {seed}: {outcome.kind}: {outcome.detail}", flush=True)
        elif outcome.kind == "differs":
            print(f"seed {seed}: not verified: {outcome.detail}", flush=True)
    listed = ", ".join(f"{number} {kind}" for kind, number in found.most_common())
    print(f"{count} mutants: {listed}; at most {slowest:.1f} s and {largest / 2**20:.0f} MiB")
    return 1 if faulty else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
