import numpy as np
import pytest

from fuser.errors import Declined
from fuser.ir.extents import Binding, Dim, Extent, affine, window


@pytest.mark.parametrize(
    ("name", "extent"),
    [
        ("H", Extent("H")),
        ("unk__3", Extent("unk__3")),
        ("H//2", Extent("H", divisor=2)),
        ("2*H", Extent("H", factor=2)),
        ("(H + 1)//2", Extent("H", add=1, divisor=2)),
        ("(3*H - 4)//32", Extent("H", 3, -4, 32)),
        ("(H + 2)", Extent("H", add=2)),
        ("s16 + 2", Extent("s16", add=2)),
        ("2*(a b)", Extent("a b", factor=2)),
        ("((a b) - 1)//2", Extent("a b", add=-1, divisor=2)),
        ("floor(H/2 - 1/2) + 1", Extent("floor(H/2 - 1/2) + 1")),
        ("H*W", Extent("H*W")),
        ("H//0", Extent("H//0")),
        ("0*H", Extent("0*H")),
    ],
)
def test_names(name: str, extent: Extent) -> None:
    assert Extent.parse(name) == extent


@pytest.mark.parametrize("extent", [Extent("H"), Extent("H", add=1, divisor=2), Extent("H", 3, -4, 7)])
@pytest.mark.parametrize("wanted", [1, 6, 7, 40])
def test_solve_gives_the_least_base(extent: Extent, wanted: int) -> None:
    base = extent.solve(wanted)
    assert extent.at(base) >= wanted
    assert base == 1 or extent.at(base - 1) < wanted


def test_a_shape_in_the_symbols_of_another() -> None:
    binding = Binding.of(("N", 4, "(H + 1)//2", None)).bound((2, 0, 5, 7))
    assert binding.shape(("N", 4, "(H + 1)//2", None)) == (2, 4, 5, 7)
    assert binding.shape(("H", "(H + 3)")) == (9, 12)
    assert binding.covers(("H", 3))
    assert not binding.covers(("W",))
    assert not binding.covers(None)


def test_parity_chooses_another_base_of_the_same_extent() -> None:
    even = Binding.of(("H//2",)).bound((5,), parity=1)
    assert (even.bases, even.shape(("H//2",))) == ({"H": 11}, (5,))


def test_other_symbols_decline() -> None:
    with pytest.raises(Declined, match="the extent W is not written in H"):
        Binding.of(("H",)).bound((5,)).shape(("W",))


@pytest.mark.parametrize(
    ("steps", "name"),
    [
        ([], "h"),
        ([(0, 1, 1)], "h"),
        ([(2, 1, 1)], "(h + 2)"),
        ([(2, 1, 1), (-2, 1, 1)], "h"),
        ([(1, 2, 1)], "(h + 1)//2"),
        ([(1, 2, 1), (1, 2, 1)], "(h + 3)//4"),
        ([(0, 1, 2)], "2*h"),
        ([(0, 1, 2), (0, 2, 1)], "h"),
        ([(0, 2, 1), (0, 1, 2)], "2*(h//2)"),
    ],
)
def test_extents_of_equal_value_have_equal_names(steps: list[tuple[int, int, int]], name: str) -> None:
    dim: Dim = "h"
    for add, divisor, factor in steps:
        dim = affine(dim, add, divisor, factor)
    assert dim == name


def test_extents_are_what_they_say() -> None:
    generator = np.random.default_rng(0)
    for _ in range(300):
        dim: Dim = "h"
        values = np.arange(200, 260)
        for _ in range(int(generator.integers(1, 5))):
            add, divisor, factor = (
                int(generator.integers(-3, 4)),
                *(int(generator.integers(1, 4)) for _ in range(2)),
            )
            dim = affine(dim, add, divisor, factor)
            values = (values * factor + add) // divisor
        assert [eval(str(dim), {"h": int(h)}) for h in range(200, 260)] == values.tolist()


def test_windows_of_an_extent() -> None:
    assert [window(n, -1, 2) for n in (0, 1, 2, 7)] == [0, 0, 1, 3]
    assert window("(h + 1)//2", 1, 2) == "(h + 5)//4"
    assert window(None, 0, 1) is None


@pytest.mark.parametrize("dim", ["H", "(H + 1)//2", 7])
def test_none_of_an_extent_is_a_number(dim: Dim) -> None:
    """An empty slice leaves none of whatever there is: no symbol."""
    assert affine(dim, 5, 2, 0) == 2
    assert affine(None, 5, 2, 0) is None
