"""Extents to try where an axis is free to have any: on both sides of every number, no two axes alike."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import count
from typing import Final

from fuser.errors import require

LARGEST_BOUND: Final = 1 << 10
"""A number in the graph may cut an axis off there; extents beyond it must be tried, and these are not."""

LARGEST_INPUT: Final = 1 << 22
"""Elements of a value that anything is tried on."""

MOST: Final = 64
"""Extents that are tried on one axis."""


def sides(numbers: Collection[int], reach: int, plain: int = 0) -> list[int]:
    """The extents next to each number, below and above, and one beyond `reach` and `plain`, the last.

    A number n may be an extent, or an index, which the extent n + 1 is the first to have. `reach` is where
    all numbers end: x[2:][:5] acts like x[2:] up to an extent of 7.

    Raises:
        Declined: a number is too large to try extents beyond it, or there are too many.
    """
    cuts = sorted({abs(n) for n in numbers if n})
    most = max(cuts, default=0)
    require(
        most <= LARGEST_BOUND,
        f"the graph has the number {most}, and extents beyond {LARGEST_BOUND} are not tried",
    )
    last = max(reach, most)
    require(
        last <= LARGEST_BOUND,
        f"numbers in the graph reach {last} together, and extents beyond {LARGEST_BOUND} are not tried",
    )
    found = sorted({side for n in cuts for side in (n - 1, n, n + 1, n + 2) if 0 < side <= last + 1})
    require(len(found) < MOST, f"{len(found) + 1} extents would have to be tried, more than {MOST}")
    return [*found, max(last + 2, plain + 1)]


def distinct(wanted: Mapping[int, int], taken: Collection[int] = ()) -> dict[int, int]:
    """For each axis the extent that is wanted, or the next that no other axis has."""
    used, found = set(taken), {}
    for axis, extent in wanted.items():
        found[axis] = next(n for n in count(extent) if n not in used)
        used.add(found[axis])
    return found


def choices(
    options: Mapping[int, Sequence[int]], plain: Mapping[int, int], taken: Collection[int] = ()
) -> Iterator[tuple[dict[int, int], bool]]:
    """For each free axis an extent, and whether all of them are beyond what is small, as the source must be.

    First the `plain` extents, then each axis with its last and largest option, then all of them with their
    others at once, until each has had all. `taken` are extents of axes that are not free.
    """
    plain = distinct(plain, taken)
    yield dict(plain), all(extents[-1] == plain[axis] for axis, extents in options.items())
    for axis, extents in options.items():
        if extents[-1] != plain[axis]:
            yield distinct({axis: extents[-1]} | {a: n for a, n in plain.items() if a != axis}), True
    inner = {axis: extents[:-1] for axis, extents in options.items()}
    had: set[tuple[int, int]] = set()
    rounds = max((place + len(extents) for place, extents in enumerate(inner.values())), default=0)
    for turn in range(rounds):
        own = {
            axis: extents[turn - place]
            for place, (axis, extents) in enumerate(inner.items())
            if 0 <= turn - place < len(extents)
        }
        # Those come first, so that they keep what they want.
        if own:
            wanted = distinct(own | {axis: n for axis, n in plain.items() if axis not in own})
            had.update(wanted.items())
            yield wanted, False
    # Where two wanted the same, one of them did not get it.
    for axis, n in ((axis, n) for axis, extents in inner.items() for n in extents if (axis, n) not in had):
        yield distinct({axis: n} | {a: other for a, other in plain.items() if a != axis}), False
