"""Inputs that fit together and mean something, for models that only such inputs get through."""

from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter

import numpy as np
import onnx
import onnx_ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from fuser.errors import InputError
from fuser.hosts.host import Fed
from fuser.hosts.onnx.demands.samples import samples_of
from fuser.hosts.onnx.judge.runtime import Session, opened
from fuser.judge.inputs import Feeds
from fuser.judge.needs import WORDS
from fuser.judge.runner import CannotRun
from tests import demanding_elements, demanding_extents
from tests.demanding_elements import mask_that_selects
from tests.small_models import normal, parsed

ALL = (*demanding_elements.ALL, *demanding_extents.ALL)


class Counted:
    """A session that counts how often it is run."""

    def __init__(self, session: Session) -> None:
        self.inputs, self.outputs = session.inputs, session.outputs
        self.runs = 0
        self._session = session

    def run(self, feeds: Mapping[str, np.ndarray]) -> Feeds:
        self.runs += 1
        return self._session.run(feeds)


def sampled(model: ModelProto, **options: object) -> tuple[list[tuple[Feeds, Feeds]], int]:
    """The samples of a model, and how often it was run for them."""
    samples = samples_of(model, Fed(**options))  # type: ignore[arg-type]  # any of its options
    with opened(model, "the model", optimise=False) as session:
        runner = Counted(session)
        return list(samples.of(runner)), runner.runs


@pytest.mark.parametrize("make", ALL, ids=lambda make: make.__name__)
def test_a_model_that_is_particular_runs_at_once_and_computes_something(
    make: Callable[[], ModelProto],
) -> None:
    found, runs = sampled(make())
    assert runs == len(found) >= 2
    for feeds, outputs in found:
        for name, array in outputs.items():
            assert array.size, name
            assert np.isfinite(array).all(), (name, {key: value.shape for key, value in feeds.items()})
            assert array.size == 1 or array.min() < array.max(), name


# --- sizes -------------------------------------------------------------------------------------------------

NUMBERS = [2, 4, 7, 30]
CUTS = {
    "the first": "y = Slice (x, none, some, axis)",
    "all but the last": "y = Slice (x, none, less, axis)",
    "the last": "y = Slice (x, less, far, axis)",
    "cropped": "y = Pad (x, crop)",
    "the largest": "y, i = TopK <axis = 0> (x, some)",
    "one of them": "y = Gather <axis = 0> (x, some)",
    "of nobody knows what": "n = NonZero (x) t = Transpose (n) y = Slice (t, none, some, axis)",
}


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("cut", CUTS)
def test_a_batch_is_tried_on_both_sides_of_what_it_is_cut_at(cut: str, number: int) -> None:
    found, _ = sampled(
        parsed(
            f"g (float[N,3] x) => ({'int64' if 'nobody' in cut else 'float'}[a,b] y) {{ {CUTS[cut]} }}",
            none=np.array([0]),
            some=np.array([number]),
            less=np.array([-number]),
            far=np.array([2**62]),
            axis=np.array([0]),
            crop=np.array([0, 0, 1 - number, 0]),
        )
    )
    batches = {feeds["x"].shape[0] for feeds, _ in found}
    assert max(batches) > number
    if cut in ("the first", "the last", "of nobody knows what"):
        assert min(batches) < number
    assert len(batches) == len(found) > 1


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(0, 3), st.integers(2, 12), st.booleans())
def test_what_follows_a_window_is_tried_on_both_sides_too(
    kernel: int, stride: int, pad: int, number: int, last: bool
) -> None:
    kernel += pad  # a window has something in it
    model = parsed(
        f"""g (float[1,2,H,W] x) => (float[a,b,c,d] y) {{
            c = Conv <strides = [{stride},1], pads = [{pad},0,{pad},0]> (x, w)
            y = Slice (c, {"some, far" if last else "none, some"}, axis)
        }}""",
        w=normal(3, 2, kernel, 1),
        none=np.array([0]),
        some=np.array([-number if last else number]),
        far=np.array([2**62]),
        axis=np.array([2]),
    )
    heights = {(feeds["x"].shape[2] + 2 * pad - kernel) // stride + 1 for feeds, _ in sampled(model)[0]}
    assert max(heights) > number
    least = (1 + 2 * pad - kernel) // stride + 1  # of an image of one row
    assert least >= number or min(heights) < number


def test_free_axes_are_not_alike() -> None:
    for feeds, _ in sampled(
        parsed("g (float[?,?,?,?] x, float[?,?] z) => (float[?,?,?,?] y) { y = Relu (x) }")
    )[0]:
        extents = [*feeds["x"].shape, *feeds["z"].shape]
        assert len({n for n in extents if n > 1}) == sum(n > 1 for n in extents)


def test_the_same_model_gets_the_same_samples() -> None:
    for make in ALL[:5]:
        once, again = (sampled(make(), seed=3)[0] for _ in range(2))
        other = sampled(make(), seed=4)[0]
        texts = [[{k: v.tolist() for k, v in feeds.items()} for feeds, _ in s] for s in (once, again, other)]
        assert texts[0] == texts[1] != texts[2]


def test_a_fixed_shape_has_two_samples_and_one_that_is_asked_for_has_one() -> None:
    model = parsed("g (float[2,3] x) => (float[2,3] y) { y = Relu (x) }")
    (first, _), (second, _) = sampled(model)[0]
    assert not np.array_equal(first["x"], second["x"])
    assert len(sampled(model, samples=1)[0]) == 1


def test_what_would_cost_too_much_is_not_tried_and_said() -> None:
    text = "g (float[N,3,224,224] x) => (float[a,3,224,224] y) { y = Slice (x, none, some, axis) }"
    ints = {"none": np.array([0]), "some": np.array([1000]), "axis": np.array([0])}
    model = parsed(text, **ints)
    samples = samples_of(model)
    with opened(model, "the model", optimise=False) as session:
        found = list(samples.of(session))
    assert max(feeds["x"].shape[0] for feeds, _ in found) < 8
    assert samples.notes == ["no sample had N at 1000 or more, which would cost too much"]


def test_shapes_that_were_tried_are_named_where_none_runs() -> None:
    text = "g (float[N,8,W] x, bool[N] z) => (float[N,2] y) { f = Flatten (x) y = MatMul (f, w) }"
    tried = r"tried x \[2, 8, \d+\]; z \[2\], or x \[1, 8, .* and \d+ more"
    with pytest.raises(CannotRun, match=f"^no sample ran: {tried}; the model: onnxruntime fails: MatMul"):
        sampled(parsed(text, w=normal(7, 2)))


def test_given_shapes_and_sizes_are_kept_and_others_follow() -> None:
    model = mask_that_selects()  # s [b, 2, T, T] beside mask [?, ?]
    for options in ({"shapes": {"mask": (5, 9)}}, {"sizes": {"b": 5, "T": 9}}):
        for feeds, _ in sampled(model, **options)[0]:
            assert feeds["s"].shape == (5, 2, 9, 9)
            assert feeds["mask"].shape == (5, 9)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"q": (1, 2)}, r"a shape for 'q', which is no input of the model; its inputs are \['s', 'mask'\]"),
        ({"s": (1, 2, 3)}, r"'s' cannot have shape \[1, 2, 3\], the model takes \['b', 2, 'T', 'T'\]"),
        ({"s": (1, 4, 3, 3)}, r"'s' cannot have shape \[1, 4, 3, 3\], the model takes"),
        ({"s": (1, 2, 3, 4)}, "'T' is 3 in the shape of 's' and 4 in that of 's'"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shapes: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        sampled(mask_that_selects(), shapes=shapes)


def test_given_inputs_are_the_only_sample_and_have_the_given_shapes() -> None:
    model = parsed("g (float[N,3] x) => (float[N,3] y) { y = Relu (x) }")
    arrays = {"x": normal(4, 3)}
    ((feeds, _),) = sampled(model, inputs=arrays, shapes={"x": (4, 3)})[0]
    assert np.array_equal(feeds["x"], arrays["x"].astype(np.float32))
    with pytest.raises(InputError, match=r"'x' was given in shape \[4, 3\], but its shape is to be \[5, 3\]"):
        sampled(model, inputs=arrays, shapes={"x": (5, 3)})


# --- elements ----------------------------------------------------------------------------------------------


def values(make: Callable[[], ModelProto], name: str) -> list[np.ndarray]:
    return [feeds[name] for feeds, _ in sampled(make())[0]]


@pytest.mark.parametrize(("name", "extent"), [("input_ids", 50), ("token_type_ids", 2)])
def test_indices_cover_their_table(name: str, extent: int) -> None:
    drawn = np.concatenate([array.reshape(-1) for array in values(demanding_elements.embeddings, name)])
    assert drawn.min() < 0.1 * extent
    assert 0.9 * (extent - 1) <= drawn.max() < extent


def test_an_offset_before_a_table_is_undone() -> None:
    for array in values(demanding_elements.indices_with_an_offset, "ids"):
        assert 1000 <= array.min() < array.max() < 1010


def test_a_mask_is_open_and_closed_and_no_row_is_closed_as_a_whole() -> None:
    for make in (
        demanding_elements.attention_mask,
        demanding_elements.mask_that_selects,
        demanding_elements.causal_and_padding_mask,
    ):
        for array in values(make, "mask"):
            assert np.unique(array).tolist() in ([0, 1], [1])
            assert array[:, 0].all()
        assert any(0 in array for array in values(make, "mask"))


def test_a_number_that_is_compared_with_comes_and_others_do() -> None:
    rates = [int(array) for array in values(demanding_elements.sample_rate_switch, "sr")]
    assert rates[0] == 16000 != rates[1]


def test_lengths_are_those_of_the_time() -> None:
    for feeds, _ in sampled(demanding_elements.lengths_against_a_range())[0]:
        assert 1 <= feeds["lengths"].min() <= feeds["lengths"].max() <= feeds["x"].shape[1]


def test_the_longest_length_is_the_time() -> None:
    for feeds, _ in sampled(demanding_extents.longest_length_is_the_time())[0]:
        assert feeds["lengths"].max() == feeds["x"].shape[1]


def test_words_that_a_model_knows_come() -> None:
    words = {word for array in values(demanding_elements.labels, "x") for word in array.reshape(-1)}
    assert words <= {"red", "blue", *WORDS}


def test_numbers_may_lie_beside_the_file(tmp_path: Path) -> None:
    file = tmp_path / "m.onnx"
    onnx.save(
        demanding_elements.indices_with_an_offset(),
        file,
        save_as_external_data=True,
        location="d",
        size_threshold=0,
    )
    with opened(file, "the model", optimise=False) as session:
        for feeds, _ in samples_of(file).of(session):
            assert feeds["ids"].min() >= 1000


def test_an_object_of_onnx_ir_is_read_as_the_file_is() -> None:
    model = demanding_extents.past_key_values()
    once = sampled(model)[0]
    with opened(model, "the model", optimise=False) as session:
        again = list(samples_of(onnx_ir.from_proto(model)).of(session))
    for (a, _), (b, _) in zip(once, again, strict=True):
        assert all(np.array_equal(a[name], b[name]) for name in a)


def test_what_nobody_can_draw_is_named() -> None:
    text = "g (seq(float[2]) x) => (int64 y) { y = SequenceLength (x) }"
    with pytest.raises(CannotRun, match=r"no sample ran: .*input 'x' is of type seq"):
        sampled(parsed(text))


def test_planning_takes_no_time_to_speak_of() -> None:
    nodes = "".join(
        f"t{i} = Conv <pads = [1,1,1,1]> (t{i - 1}, w) r{i} = Add (t{i}, x) " for i in range(1, 5000)
    )
    text = f"g (float[N,4,H,W] x) => (float[a,b,c,d] y) {{ t0 = Relu (x) {nodes} y = Relu (t4999) }}"
    model = parsed(text, w=normal(4, 4, 3, 3))
    started = perf_counter()
    samples_of(model)
    assert perf_counter() - started < 10


def test_a_function_that_calls_itself_is_left_to_the_runtime() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["": 17, "my": 1]>
        g (float[b,T] x) => (float[b,T] y) { y = my.endless (x) }
        <domain: "my", opset_import: ["": 17, "my": 1]>
        endless (x) => (y) { y = my.endless (x) }"""
    )
    assert samples_of(model).notes == []
