"""Small models whose elements have to mean something, each a kind that users bring."""

import numpy as np
import onnx
from onnx import ModelProto

from tests.small_models import normal, parsed

LOWEST = np.array(np.finfo(np.float32).min)


def attention_mask() -> ModelProto:
    return parsed(
        """g (float[b,T,8] x, int64[b,T] mask) => (float[b,T,8] y) {
            q = MatMul (x, w)
            k = Transpose <perm = [0,2,1]> (q)
            s = MatMul (q, k)
            axes = Constant <value = int64[1] {1}> ()
            u = Unsqueeze (mask, axes)
            m = Cast <to = 1> (u)
            i = Sub (unit, m)
            p = Mul (i, low)
            t = Add (s, p)
            a = Softmax <axis = -1> (t)
            y = MatMul (a, x)
        }""",
        w=normal(8, 8) / 3,
        unit=np.array(1.0),
        low=LOWEST,
    )


def mask_that_selects() -> ModelProto:
    return parsed(
        """g (float[b,2,T,T] s, int64[?,?] mask) => (float[b,2,T,T] y) {
            axes = Constant <value = int64[2] {1,2}> ()
            u = Unsqueeze (mask, axes)
            c = Equal (u, zero)
            t = Where (c, low, s)
            y = Softmax <axis = -1> (t)
        }""",
        zero=np.array(0),
        low=np.array(-np.inf),
    )


def mask_in_time_major_order() -> ModelProto:
    return parsed(
        """g (float[b,T] s, bool[T,b] padding) => (float[b,T] y) {
            p = Transpose <perm = [1,0]> (padding)
            z = Where (p, low, nothing)
            t = Add (s, z)
            y = Softmax <axis = -1> (t)
        }""",
        low=np.array(-np.inf),
        nothing=np.array(0.0),
    )


def causal_and_padding_mask() -> ModelProto:
    return parsed(
        """g (float[b,T,T] s, int64[b,T] mask) => (float[b,T,T] y) {
            shape = Shape <start = 1, end = 2> (mask)
            length = Squeeze (shape)
            r = Range (zero, length, one)
            column = Unsqueeze (r, last)
            causal = LessOrEqual (r, column)
            c = Cast <to = 9> (mask)
            u = Unsqueeze (c, second)
            both = And (causal, u)
            t = Where (both, s, low)
            y = Softmax <axis = -1> (t)
        }""",
        zero=np.array(0),
        one=np.array(1),
        last=np.array([1]),
        second=np.array([1]),
        low=np.array(-1e9),
    )


def embeddings() -> ModelProto:
    return parsed(
        """g (int64[b,T] input_ids, int64[b,T] token_type_ids) => (float[b,T,8] y) {
            shape = Shape <start = 1, end = 2> (input_ids)
            length = Squeeze (shape)
            r = Range (zero, length, one)
            e = Gather (words, input_ids)
            p = Gather (positions, r)
            t = Gather (types, token_type_ids)
            a = Add (e, p)
            s = Add (a, t)
            y = LayerNormalization (s, scale)
        }""",
        words=normal(50, 8),
        positions=normal(20, 8),
        types=normal(2, 8),
        scale=normal(8),
        zero=np.array(0),
        one=np.array(1),
    )


def positions_counted_over_a_mask() -> ModelProto:
    return parsed(
        """g (int64[b,T] ids) => (float[b,T,8] y) {
            padding = Equal (ids, pad)
            real = Not (padding)
            m = Cast <to = 7> (real)
            c = CumSum (m, axis)
            n = Mul (c, m)
            p = Add (n, pad)
            a = Gather (positions, p)
            e = Gather (words, ids)
            y = Add (e, a)
        }""",
        pad=np.array(1),
        axis=np.array(1),
        words=normal(100, 8),
        positions=normal(18, 8),
    )


def lengths_of_a_recurrence() -> ModelProto:
    return parsed(
        """g (float[T,?,6] x, int32[?] lengths) => (float[a,b,c,d] y) {
            y, h = GRU <hidden_size = 4> (x, w, r, , lengths)
        }""",
        w=normal(1, 12, 6),
        r=normal(1, 12, 4),
    )


def lengths_against_a_range() -> ModelProto:
    return parsed(
        """g (float[b,T] x, int64[b] lengths) => (float[b,T] y, float[b] mean) {
            shape = Shape <start = 1, end = 2> (x)
            length = Squeeze (shape)
            r = Range (zero, length, one)
            n = Unsqueeze (lengths, axes)
            c = Less (r, n)
            t = Where (c, x, low)
            y = Softmax <axis = -1> (t)
            f = Cast <to = 1> (lengths)
            s = ReduceSum <keepdims = 0> (x, axes)
            mean = Div (s, f)
        }""",
        zero=np.array(0),
        one=np.array(1),
        axes=np.array([1]),
        low=np.array(-np.inf),
    )


def sample_rate_switch() -> ModelProto:
    return parsed(
        """g (float[b,n] x, int64 sr) => (float[p,q] y) {
            wide = Equal (sr, rate)
            y = If (wide) <
                then_branch = a () => (float[p,q] u) { u = MatMul (x, w16) },
                else_branch = b () => (float[p,q] v) { v = MatMul (x, w8) }
            >
        }""",
        rate=np.array(16000),
        w16=normal(48, 4),
        w8=normal(24, 4),
    )


def one_hot() -> ModelProto:
    return parsed(
        """g (int64[b,T] classes) => (float[b,T,4] y) {
            h = OneHot (classes, depth, values)
            y = MatMul (h, w)
        }""",
        depth=np.array([7]),
        values=np.array([0.0, 1.0]),
        w=normal(7, 4),
    )


def indices_of_all_kinds() -> ModelProto:
    return parsed(
        """g (float[b,5] x, int64[b,3] i, int64[n,2] j, int64[m,1] k, float[m,6] u)
            => (float[b,3] y, float[n] z, float[4,6] t) {
            y = GatherElements <axis = 1> (x, i)
            z = GatherND (table, j)
            t = ScatterND (table, k, u)
        }""",
        table=normal(4, 6),
    )


def indices_with_an_offset() -> ModelProto:
    return parsed(
        """g (int32[b,T] ids) => (float[b,T,4] y) {
            long = Cast <to = 7> (ids)
            low = Sub (long, shift)
            y = Gather (words, low)
        }""",
        shift=np.array(1000),
        words=normal(10, 4),
    )


def domain_of_functions() -> ModelProto:
    return parsed(
        """g (float[b,4] x, float[b,4] p, float[4] d) => (float[b,4] y) {
            l = Log (x)
            s = Sqrt (p)
            q = Div (s, d)
            y = Add (l, q)
        }""",
    )


def images_of_bytes() -> ModelProto:
    return parsed(
        """g (uint8[n,h,w,3] x) => (float[n,a,b,c] y) {
            f = Cast <to = 1> (x)
            s = Div (f, full)
            t = Transpose <perm = [0,3,1,2]> (s)
            y = Conv (t, k)
        }""",
        full=np.array(255.0),
        k=normal(4, 3, 3, 3),
    )


def labels() -> ModelProto:
    nodes = [
        onnx.helper.make_node(
            "LabelEncoder",
            ["x"],
            ["i"],
            domain="ai.onnx.ml",
            keys_strings=["red", "blue"],
            values_int64s=[0, 1],
            default_int64=2,
        ),
        onnx.helper.make_node("Gather", ["table", "i"], ["y"]),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.STRING, ["n"])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 4])],
        [onnx.numpy_helper.from_array(normal(3, 4).astype(np.float32), "table")],
    )
    domains = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("ai.onnx.ml", 3)]
    return onnx.helper.make_model(graph, opset_imports=domains, ir_version=9)


def mask_inside_a_function() -> ModelProto:
    return onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["": 17, "my": 1]>
        g (float[b,T] s, int64[b,T] mask) => (float[b,T] y) {
            t = my.masked <low = -1e9> (s, mask)
            y = Softmax <axis = -1> (t)
        }
        <domain: "my", opset_import: ["": 17]>
        masked <low> (s, mask) => (t) {
            unit = Constant <value = float {1.0}> ()
            lowest = Constant <value_float: float = @low> ()
            m = Cast <to = 1> (mask)
            i = Sub (unit, m)
            p = Mul (i, lowest)
            t = Add (s, p)
        }"""
    )


def mask_of_floats() -> ModelProto:
    return parsed(
        """g (float[b,T] s, float[b,T] m) => (float[b,T] y) {
            i = Sub (unit, m)
            p = Mul (i, low)
            t = Add (s, p)
            y = Softmax <axis=-1> (t)
        }""",
        unit=np.array(1.0),
        low=np.array(-1e9),
    )


def mask_that_fills() -> ModelProto:
    return parsed(
        """g (float[b,T,T] s, int64[?,?] mask) => (float[b,T,T] y) {
            u = Unsqueeze (mask, ax)
            sh = Shape (s)
            e = Expand (u, sh)
            c = Cast <to=9> (e)
            n = Not (c)
            t = Where (n, low, s)
            y = Softmax <axis=-1> (t)
        }""",
        ax=np.array([1]),
        low=LOWEST,
    )


def last_token_of_each_row() -> ModelProto:
    return parsed(
        """g (float[b,T,4] x, int64[b,T] mask) => (float[b,4] y) {
            n = ReduceSum <keepdims=0> (mask, ax)
            l = Sub (n, one)
            sh = Shape <start=0,end=1> (x)
            bb = Squeeze (sh)
            r = Range (zero, bb, one)
            ru = Unsqueeze (r, ax)
            lu = Unsqueeze (l, ax)
            ix = Concat <axis=1> (ru, lu)
            y = GatherND (x, ix)
        }""",
        ax=np.array([1]),
        one=np.array(1),
        zero=np.array(0),
    )


def row_that_is_asked_for() -> ModelProto:
    return parsed(
        """g (float[T,3] x, int32 step) => (float[a] y) {
            s = Gather (x, step)
            y = Tanh (s)
        }""",
    )


def sample_rate_in_a_list() -> ModelProto:
    return parsed(
        """g (float[b,n] x, int64[1] sr) => (float[p,q] y) {
            k = Div (sr, base)
            two = Equal (k, tw)
            t = Squeeze (two)
            n = Not (t)
            y = If (n) <
                then_branch = a () => (float[p,q] u) { u = MatMul (x, w8) },
                else_branch = bb () => (float[p,q] v) { v = MatMul (x, w16) }
            >
        }""",
        base=np.array([8000]),
        tw=np.array([2]),
        w16=normal(48, 4),
        w8=normal(24, 4),
    )


def time_steps() -> ModelProto:
    return parsed(
        """g (float[b,T,4] x, int64[b] t) => (float[b,T,4] y) {
            e = Gather (table, t)
            u = Unsqueeze (e, ax)
            y = Add (x, u)
        }""",
        table=normal(5, 4),
        ax=np.array([1]),
    )


def loop_over_tokens() -> ModelProto:
    return parsed(
        """g (int64[T] ids, float[4] h0) => (float[4] y, float[T,4] all) {
            sh = Shape (ids)
            n = Squeeze (sh)
            go = Constant <value = bool {1}> ()
            y, all = Loop (n, go, h0) <
                body = l (int64 i, bool c, float[4] h) => (bool d, float[4] o, float[4] r) {
                    d = Identity (c)
                    token = Gather (ids, i)
                    e = Gather (table, token)
                    s = Add (e, h)
                    o = Tanh (s)
                    r = Identity (o)
                }
            >
        }""",
        table=normal(6, 4),
    )


def mask_times_itself() -> ModelProto:
    return parsed(
        """g (float[b,T,T] s, int64[b,T] mask) => (float[b,T,T] y) {
            f = Cast <to=1> (mask)
            r = Unsqueeze (f, a1)
            c = Unsqueeze (f, a2)
            o = Mul (r, c)
            i = Sub (unit, o)
            p = Mul (i, low)
            t = Add (s, p)
            y = Softmax <axis=-1> (t)
        }""",
        a1=np.array([1]),
        a2=np.array([2]),
        unit=np.array(1.0),
        low=np.array(-10000.0),
    )


def logarithm_of_a_mask() -> ModelProto:
    return parsed(
        """g (float[b,T] s, int64[b,T] mask) => (float[b,T] y) {
            f = Cast <to=1> (mask)
            l = Log (f)
            t = Add (s, l)
            y = Softmax <axis=-1> (t)
        }""",
    )


def mask_of_pairs() -> ModelProto:
    return parsed(
        """g (float[b,2,T,S] s, bool[b,1,T,S] mask) => (float[b,2,T,S] y) {
            t = Where (mask, s, low)
            y = Softmax <axis=-1> (t)
        }""",
        low=np.array(-np.inf),
    )


def domain_of_inverses() -> ModelProto:
    return parsed(
        """g (float[b,T] x, float[b,T] z) => (float[b,T] y) {
            a = Acos (x)
            r = Reciprocal (z)
            y = Add (a, r)
        }""",
    )


def domain_of_products() -> ModelProto:
    return parsed(
        """g (float[b,T] x, float[b,T] z) => (float[b,T] y) {
            m = Mul (x, z)
            a = Sqrt (m)
            l = Log (z)
            y = Add (a, l)
        }""",
    )


ALL = (
    attention_mask,
    mask_that_selects,
    mask_in_time_major_order,
    causal_and_padding_mask,
    embeddings,
    positions_counted_over_a_mask,
    lengths_of_a_recurrence,
    lengths_against_a_range,
    sample_rate_switch,
    one_hot,
    indices_of_all_kinds,
    indices_with_an_offset,
    domain_of_functions,
    images_of_bytes,
    labels,
    mask_inside_a_function,
    mask_of_floats,
    mask_that_fills,
    last_token_of_each_row,
    row_that_is_asked_for,
    sample_rate_in_a_list,
    time_steps,
    loop_over_tokens,
    mask_times_itself,
    logarithm_of_a_mask,
    mask_of_pairs,
    domain_of_inverses,
    domain_of_products,
)
