"""Does a test fail for every condition? ``python -m tests.break_conditions [--only PATH] [--list]``.

Takes the conditions of `fuser/` and `passes/` away one at a time (`tests/conditions.py` says what counts as
one) and runs the tests in which it refuses something, until one fails: the others cannot tell. All runs are
forks of one process that has imported everything. Exit status 1 if the loss of a condition goes unnoticed.

`tests/zoo` has no say: a condition that only a whole model needs is one that nobody finds again.
"""

import argparse
import hashlib
import json
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from tests.conditions import Condition, Switch, conditions, install

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("fuser", "passes")
CACHE = Path("tests/.cache/conditions.json")
# A test that takes this many times as long as it did, and this many seconds more, never ends.
PATIENCE = 10, 60


@dataclass(frozen=True)
class Run:
    """What a test did with all conditions in place."""

    test: str
    passed: bool
    seconds: float
    refused: list[str]


class Breaker:
    """The plugin that takes the place of pytest's loop over the tests, once they are collected."""

    def __init__(self, root: Path, packages: Sequence[str], only: str, switch: Switch) -> None:
        self.root, self.packages, self.only, self.switch = root, packages, only, switch
        self.failed = False
        self.unnoticed: list[Condition] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.failed |= report.failed

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            return True
        runs = self.runs(session.items)
        for run in runs:
            if not run.passed:
                session.testsfailed += 1
                print(f"{run.test} fails as it is, and has no say")
        items = {item.nodeid: item for item in session.items}
        asked: dict[str, list[Run]] = defaultdict(list)
        for run in runs:
            for place in run.refused if run.passed else ():
                asked[place].append(run)
        for condition in conditions(self.root, self.packages):
            if condition.place.startswith(self.only):
                self.try_without(condition, asked[condition.place], items)
        return True

    def try_without(self, condition: Condition, runs: list[Run], items: dict[str, pytest.Item]) -> None:
        """Run the tests in which the condition refuses something without it, and print which fails."""
        begin = time.perf_counter()
        stem = Path(condition.place).stem.lstrip("_")
        ordered = sorted(runs, key=lambda run: (stem not in run.test, run.seconds))

        def work(report: Connection) -> None:
            self.switch.broken = condition.place
            for run in ordered:
                report.send(run.test)
                if not self.passes(items[run.test], PATIENCE[0] * run.seconds + PATIENCE[1]):
                    return
            report.send(None)

        *_, last = ["", *self.forked(work)]
        if last:
            verdict = last
        else:
            verdict = f"UNNOTICED by {len(runs)} tests" if runs else "UNNOTICED: it refuses in no test"
            self.unnoticed.append(condition)
        print(f"{condition.place}  {verdict}  {time.perf_counter() - begin:.1f} s", flush=True)

    def passes(self, item: pytest.Item, seconds: float) -> bool:
        """Whether the test passes. In a fork only: after `seconds` the process ends."""
        self.failed = False
        signal.setitimer(signal.ITIMER_REAL, seconds)
        # Without a next item all fixtures are taken down, so that none is left from before.
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        signal.setitimer(signal.ITIMER_REAL, 0)
        return not self.failed

    def runs(self, items: Sequence[pytest.Item]) -> list[Run]:
        """What every test does with all conditions in place, from the cache where nothing changed."""
        cache = self.root / CACHE
        keys = self.keys({item.nodeid.partition("::")[0] for item in items})
        known: dict[str, list[Run]] = {}
        if cache.exists():
            stored = json.loads(cache.read_text())
            known = {key: [Run(**run) for run in runs] for key, runs in stored.items()}
        missing = [item for item in items if keys[item.nodeid.partition("::")[0]] not in known]
        if missing:
            print(f"{len(missing)} of {len(items)} tests run once, to see what refuses in them", flush=True)
        made: dict[str, list[Run]] = defaultdict(list)
        while missing:
            done = list(self.forked(partial(self.observe, missing)))
            if len(done) < len(missing):
                done.append(Run(missing[len(done)].nodeid, passed=False, seconds=0.0, refused=[]))
            for run in done:
                made[keys[run.test.partition("::")[0]]].append(run)
            missing = missing[len(done) :]
        all_runs = {key: made.get(key) or known[key] for key in keys.values()}
        cache.parent.mkdir(parents=True, exist_ok=True)
        cache.write_text(json.dumps({key: [asdict(run) for run in runs] for key, runs in all_runs.items()}))
        return [run for runs in all_runs.values() for run in runs]

    def observe(self, items: Sequence[pytest.Item], report: Connection) -> None:
        """Run the tests and report each. What one ends by force, a process of the runtime's, ends early."""
        for item in items:
            self.switch.refused = set()
            begin = time.perf_counter()
            passed = self.passes(item, 0)
            report.send(Run(item.nodeid, passed, time.perf_counter() - begin, sorted(self.switch.refused)))

    def keys(self, files: Iterable[str]) -> dict[str, str]:
        """For each file of tests a digest of all that its tests depend on."""
        common = hashlib.sha256()
        for package in (*self.packages, "tests"):
            for path in sorted((self.root / package).rglob("*.py")):
                if package != "tests" or not path.name.startswith("test_"):
                    common.update(path.read_bytes())
        return {
            name: hashlib.sha256(
                name.encode() + common.digest() + (self.root / name).read_bytes()
            ).hexdigest()
            for name in files
        }

    @staticmethod
    def forked(work: Callable[[Connection], None]) -> Iterator[Any]:
        """What `work` sends, from a fork of this process. It need not live to its end."""
        context = get_context("fork")
        receiver, sender = context.Pipe(duplex=False)

        def silently() -> None:
            receiver.close()
            nothing = os.open(os.devnull, os.O_WRONLY)
            for stream in (1, 2):
                os.dup2(nothing, stream)
            work(sender)

        process = context.Process(target=silently)
        process.start()
        sender.close()
        try:
            while True:
                yield receiver.recv()
        except EOFError:
            process.join()


class Quiet:
    """Has pytest's own reporter say nothing."""

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        config.pluginmanager.unregister(name="terminalreporter")


def search(root: Path, packages: Sequence[str], only: str = "") -> int:
    """Try the conditions of the packages in `root` whose place begins with `only`; the exit status."""
    # Threads do not live on in a fork, and random examples would not be those that were seen to refuse.
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", CI="1")
    switch = Switch()
    install(root, packages, switch)
    breaker = Breaker(root, packages, only, switch)
    options = ["--rootdir", str(root), "--ignore", str(root / "tests/zoo"), "-p", "no:cacheprovider"]
    status = pytest.main([*options, str(root / "tests")], plugins=[breaker, Quiet()])
    for condition in breaker.unnoticed:
        print(f"unnoticed: {condition.place}  {condition.text}")
    return int(status != pytest.ExitCode.OK or bool(breaker.unnoticed))


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.break_conditions", description=__doc__)
    parser.add_argument("--only", default="", metavar="PATH", help="only conditions whose place begins so")
    parser.add_argument("--list", action="store_true", help="list the conditions and try nothing")
    arguments = parser.parse_args()
    if not arguments.list:
        return search(ROOT, PACKAGES, arguments.only)
    for condition in conditions(ROOT, PACKAGES):
        if condition.place.startswith(arguments.only):
            print(f"{condition.place}  {condition.text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
