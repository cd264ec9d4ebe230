"""Small models that only inputs of some meaning get through, each a kind that users bring."""

import numpy as np
import onnx
from onnx import ModelProto

from tests.small_models import normal, parsed

INT = {"zero": np.array([0]), "one": np.array([1]), "two": np.array([2]), "far": np.array([2**62])}
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


def positions_sliced_from_a_table() -> ModelProto:
    return parsed(
        """g (int64[b,T] ids) => (float[b,T,8] y) {
            length = Shape <start = 1, end = 2> (ids)
            p = Slice (positions, zero, length, one)
            e = Gather (words, ids)
            y = Add (e, p)
        }""",
        words=normal(30, 8),
        positions=normal(1, 12, 8),
        **INT,
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


def longest_length_is_the_time() -> ModelProto:
    return parsed(
        """g (float[b,T] x, int64[b] lengths) => (float[b,T] y) {
            longest = ReduceMax <keepdims = 0> (lengths)
            r = Range (zero, longest, one)
            n = Unsqueeze (lengths, axes)
            c = Less (r, n)
            m = Cast <to = 1> (c)
            y = Mul (x, m)
        }""",
        zero=np.array(0),
        one=np.array(1),
        axes=np.array([1]),
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


def states_of_an_unnamed_batch() -> ModelProto:
    return parsed(
        """g (float[?,?,16] x, float[1,?,8] h, float[1,?,8] c) => (float[a,b,d,e] y, float[f,g,i] hn, float[j,k,l] cn) {
            y, hn, cn = LSTM <hidden_size = 8> (x, w, r, , , h, c)
        }""",
        w=normal(1, 32, 16),
        r=normal(1, 32, 8),
    )


def u_net() -> ModelProto:
    down = "Conv <pads = [1,1,1,1], strides = [2,2]>"
    up = "ConvTranspose <strides = [2,2]>"
    return parsed(
        f"""g (float[?,3,?,?] x) => (float[a,b,c,d] y) {{
            d1 = {down} (x, w1)
            d2 = {down} (d1, w2)
            d3 = {down} (d2, w3)
            u2 = {up} (d3, v3)
            c2 = Concat <axis = 1> (u2, d2)
            u1 = {up} (c2, v2)
            c1 = Concat <axis = 1> (u1, d1)
            u0 = {up} (c1, v1)
            y = Concat <axis = 1> (u0, x)
        }}""",
        w1=normal(4, 3, 3, 3),
        w2=normal(4, 4, 3, 3),
        w3=normal(4, 4, 3, 3),
        v3=normal(4, 4, 2, 2),
        v2=normal(8, 4, 2, 2),
        v1=normal(8, 3, 2, 2),
    )


def two_towers() -> ModelProto:
    return parsed(
        """g (float[?,3,?,?] image, int64[?,?] ids) => (float[n] y) {
            i = Conv <strides = [4,4]> (image, w)
            g = GlobalAveragePool (i)
            f = Flatten (g)
            e = Gather (words, ids)
            t = ReduceMean <axes = [1], keepdims = 0> (e)
            m = Mul (f, t)
            y = ReduceSum <keepdims = 0> (m, axes)
        }""",
        w=normal(8, 3, 4, 4),
        words=normal(9, 8),
        axes=np.array([1]),
    )


def detection_head() -> ModelProto:
    return parsed(
        """g (float[?,3,?,?] image, float[?,2] im_shape, float[?,2] scale_factor) => (float[n,c,h,w] f, float[n,d] y) {
            f = Conv <strides = [8,8]> (image, w)
            s = Div (im_shape, scale_factor)
            r = Floor (s)
            l = Log (r)
            g = GlobalAveragePool (f)
            b = Flatten (g)
            y = Mul (b, l)
        }""",
        w=normal(2, 3, 8, 8),
    )


def trip_count() -> ModelProto:
    return parsed(
        """g (float[b,4] x, int64 n, float[k,4] z) => (float[b,4] y, float[k,4] t) {
            go = Constant <value = bool {1}> ()
            y, s = Loop (n, go, x) <
                body = l (int64 i, bool c, float[b,4] v) => (bool d, float[b,4] o, float[4] r) {
                    d = Identity (c)
                    o = Tanh (v)
                    r = ReduceMean <axes = [0], keepdims = 0> (o)
                }
            >
            t = Add (s, z)
        }""",
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


def past_key_values() -> ModelProto:
    return parsed(
        """g (int64[?,?] ids, float[?,2,?,4] past, int64[?,?] mask) => (float[a,b,c,d] y, float[e,f,g,h] present) {
            w = Gather (words, ids)
            l = Shape <start = 1, end = 2> (ids)
            shape = Concat <axis = 0> (kept, l, split)
            r = Reshape (w, shape)
            q = Transpose <perm = [0,2,1,3]> (r)
            present = Concat <axis = 2> (past, q)
            k = Transpose <perm = [0,1,3,2]> (present)
            s = MatMul (q, k)
            u = Unsqueeze (mask, axes)
            m = Cast <to = 1> (u)
            i = Sub (unit, m)
            p = Mul (i, low)
            t = Add (s, p)
            a = Softmax <axis = -1> (t)
            v = MatMul (a, present)
            pl = Shape <start = 2, end = 3> (past)
            ps = Squeeze (pl)
            ls = Squeeze (l)
            e = Add (ps, ls)
            range = Range (ps, e, one)
            pe = Gather (positions, range)
            y = Add (v, pe)
        }""",
        words=normal(40, 8),
        positions=normal(25, 4),
        kept=np.array([0]),
        split=np.array([2, 4]),
        axes=np.array([1, 2]),
        unit=np.array(1.0),
        low=LOWEST,
        one=np.array(1),
    )


def indices_of_all_kinds() -> ModelProto:
    return parsed(
        """g (float[b,5] x, int64[b,3] i, int64[n,2] j, int64[m,1] k, float[m,6] u) => (float[b,3] y, float[n] z, float[4,6] t) {
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


def tokens_of_one_number() -> ModelProto:
    return parsed(
        """g (float[n,3,h,w] x) => (float[n,p,q] y) {
            c = Conv <strides = [8,8]> (x, k)
            r = Reshape (c, shape)
            t = Transpose <perm = [0,2,1]> (r)
            y = Add (t, positions)
        }""",
        k=normal(6, 3, 8, 8),
        shape=np.array([0, 6, -1]),
        positions=normal(1, 49, 6),
    )


def receptive_field() -> ModelProto:
    return parsed(
        """g (float[?,?] wave) => (float[a,b,c] y) {
            u = Unsqueeze (wave, axes)
            c = Conv <strides = [160]> (u, k)
            y = Conv (c, m)
        }""",
        k=normal(4, 1, 400) / 20,
        m=normal(2, 4, 3),
        axes=np.array([1]),
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


def size_that_is_asked_for() -> ModelProto:
    return parsed(
        """g (float[1,2,h,w] x, int64[2] size) => (float[a,b,c,d] y) {
            s = Concat <axis = 0> (first, size)
            y = Resize <mode = "nearest"> (x, , , s)
        }""",
        first=np.array([1, 2]),
    )


def shapes_that_are_inputs() -> ModelProto:
    return parsed(
        """g (float[1,4] x, int64[2] shape, int64[1] k) => (float[a,b] y, float[c,d] t) {
            e = Expand (x, shape)
            y = Mul (e, x)
            t, i = TopK (e, k)
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


def attention_by_letters() -> ModelProto:
    return parsed(
        """g (float[?,?,2,4] q, float[?,?,2,4] k, float[?,?,2,4] v) => (float[a,b,c,d] y) {
            s = Einsum <equation = "bihd,bjhd->bhij"> (q, k)
            p = Softmax <axis = -1> (s)
            y = Einsum <equation = "bhij,bjhd->bihd"> (p, v)
        }""",
    )


def scanned_together() -> ModelProto:
    return parsed(
        """g (float[?] start, float[?,?] x, float[?,?] z) => (float[a] y, float[b,c] all) {
            y, all = Scan (start, x, z) <
                num_scan_inputs = 2, body = l (float[n] s, float[n] u, float[n] v) => (float[n] t, float[n] o) {
                    m = Mul (u, v)
                    t = Add (s, m)
                    o = Identity (t)
                }
            >
        }""",
    )


def most_of_a_long_axis() -> ModelProto:
    return parsed(
        """g (float[b,T] x) => (float[b,k] y) {
            y, i = TopK (x, k)
        }""",
        k=np.array([70]),
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


def windows_of_seven() -> ModelProto:
    return parsed(
        """g (float[n,h,w,4] x) => (float[a,b,c,d] y) {
            s = Shape (x)
            n0 = Gather (s, i0)
            h0 = Gather (s, i1)
            w0 = Gather (s, i2)
            hw = Div (h0, seven)
            ww = Div (w0, seven)
            sh = Concat <axis=0> (n0, hw, seven, ww, seven, four)
            r = Reshape (x, sh)
            t = Transpose <perm=[0,1,3,2,4,5]> (r)
            y = Reshape (t, flat)
        }""",
        i0=np.array([0]),
        i1=np.array([1]),
        i2=np.array([2]),
        seven=np.array([7]),
        four=np.array([4]),
        flat=np.array([-1, 7, 7, 4]),
    )


def rows_in_fours() -> ModelProto:
    return parsed(
        """g (float[n,3] x) => (float[a,b] y) {
            y = Reshape (x, s)
        }""",
        s=np.array([4, -1]),
    )


def range_that_is_asked_for() -> ModelProto:
    return parsed(
        """g (float[T,3] x, int64[1] start, int64[1] end) => (float[a,b] y) {
            s = Slice (x, start, end, z)
            y = Tanh (s)
        }""",
        z=np.array([0]),
    )


def row_that_is_asked_for() -> ModelProto:
    return parsed(
        """g (float[T,3] x, int32 step) => (float[a] y) {
            s = Gather (x, step)
            y = Tanh (s)
        }""",
    )


def branch_with_a_cache() -> ModelProto:
    return parsed(
        """g (float[b,s,4] x, float[b,p,4] past, bool use) => (float[b,t,4] y) {
            y = If (use) <
                then_branch = a () => (float[b,t,4] u) { u = Concat <axis=1> (past, x) },
                else_branch = e () => (float[b,t,4] v) { v = Add (x, past) }
            >
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


def class_token_for_each_row() -> ModelProto:
    return parsed(
        """g (float[?,?,4] x, float[1,1,4] cls) => (float[b,t,4] y) {
            s = Shape <start=0,end=1> (x)
            sh = Concat <axis=0> (s, m1, m1)
            ones = ConstantOfShape <value = int64[1] {1}> (three)
            e = Equal (sh, neg)
            w = Where (e, ones, sh)
            c = Expand (cls, w)
            k = Concat <axis=1> (c, x)
            p = Add (k, pos)
            y = Tanh (p)
        }""",
        m1=np.array([-1]),
        three=np.array([3]),
        neg=np.array(-1),
        pos=normal(1, 50, 4),
    )


def prompts_of_points() -> ModelProto:
    return parsed(
        """g (float[1,N,2] points, float[1,N] labels, float[2] size, float[1,1,16,16] low) => (float[a,b,c,d] y, float[1,N,2] p) {
            ap = Unsqueeze (labels, ax)
            e = Equal (ap, neg)
            ee = Cast <to=1> (e)
            p = Mul (points, ee)
            s = Cast <to=7> (size)
            o = Concat <axis=0> (one2, s)
            y = Resize <mode="linear"> (low, , , o)
        }""",
        ax=np.array([2]),
        neg=np.array(-1.0),
        one2=np.array([1, 1]),
    )


def denoiser() -> ModelProto:
    return parsed(
        """g (float[?,4,?,?] sample, int64[1] timestep, float[?,?,8] states) => (float[a,b,c,d] y) {
            f = Cast <to=1> (timestep)
            fr = Mul (f, freq)
            e = Sin (fr)
            em = MatMul (e, we)
            er = Unsqueeze (em, ax0)
            eu = Unsqueeze (er, ax2)
            c1 = Conv <pads=[1,1,1,1]> (sample, w1)
            c2 = Add (c1, eu)
            d = Conv <strides=[2,2], pads=[1,1,1,1]> (c2, w2)
            fl = Reshape (d, flat)
            q = Transpose <perm=[0,2,1]> (fl)
            kt = Transpose <perm=[0,2,1]> (states)
            s = MatMul (q, kt)
            a = Softmax <axis=-1> (s)
            v = MatMul (a, states)
            vt = Transpose <perm=[0,2,1]> (v)
            sh = Shape (d)
            back = Reshape (vt, sh)
            u = Resize <mode="nearest"> (back, , sc)
            k = Concat <axis=1> (u, c2)
            y = Conv (k, w3)
        }""",
        freq=normal(6),
        we=normal(6, 8),
        ax0=np.array([0]),
        ax2=np.array([2, 3]),
        flat=np.array([0, 8, -1]),
        w1=normal(8, 4, 3, 3),
        w2=normal(8, 8, 3, 3),
        w3=normal(4, 16, 1, 1),
        sc=np.array([1.0, 1, 2, 2]),
    )


def scales_that_are_asked_for() -> ModelProto:
    return parsed(
        """g (float[1,1,6,6] x, float[4] sc) => (float[a,b,c,d] y) {
            y = Resize <mode="nearest"> (x, , sc)
        }""",
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
            y,
            all = Loop (n, go, h0) <
                body = l (int64 i, bool c, float[4] h) => (bool d, float[4] o, float[4] r) { d = Identity (c) tok = Gather (ids, i) e = Gather (table, tok) s = Add (e, h) o = Tanh (s) r = Identity (o) }
            >
        }""",
        table=normal(6, 4),
    )


def product_of_unknown_matrices() -> ModelProto:
    return parsed(
        """g (float[?,?] a, float[?,?] b2) => (float[?,?] y) {
            m = MatMul (a, b2)
            y = Concat <axis=0> (m, c)
        }""",
        c=normal(3, 7),
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


def crop_between_numbers() -> ModelProto:
    return parsed(
        """g (float[n,2,h,w] x) => (float[a,b,c,d] y) {
            s = Slice (x, st, en, ax)
            r = Reshape (s, sh)
            y = Tanh (r)
        }""",
        st=np.array([3, 2]),
        en=np.array([20, -2]),
        ax=np.array([2, 3]),
        sh=np.array([0, 34, -1]),
    )


def branch_on_an_extent() -> ModelProto:
    return parsed(
        """g (float[b,T] x) => (float[p] y) {
            sh = Shape <start=1,end=2> (x)
            s = Squeeze (sh)
            c = Equal (s, one)
            y = If (c) <
                then_branch = a () => (float[p] u) { u = Squeeze (x, ax) },
                else_branch = bb () => (float[p] v) { v = ReduceSum <keepdims=0> (x, ax) }
            >
        }""",
        one=np.array(1),
        ax=np.array([1]),
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
    positions_sliced_from_a_table,
    positions_counted_over_a_mask,
    lengths_of_a_recurrence,
    lengths_against_a_range,
    longest_length_is_the_time,
    sample_rate_switch,
    states_of_an_unnamed_batch,
    u_net,
    two_towers,
    detection_head,
    trip_count,
    one_hot,
    past_key_values,
    indices_of_all_kinds,
    indices_with_an_offset,
    tokens_of_one_number,
    receptive_field,
    domain_of_functions,
    size_that_is_asked_for,
    shapes_that_are_inputs,
    images_of_bytes,
    labels,
    mask_inside_a_function,
    attention_by_letters,
    scanned_together,
    most_of_a_long_axis,
    mask_of_floats,
    mask_that_fills,
    last_token_of_each_row,
    windows_of_seven,
    rows_in_fours,
    range_that_is_asked_for,
    row_that_is_asked_for,
    branch_with_a_cache,
    sample_rate_in_a_list,
    class_token_for_each_row,
    prompts_of_points,
    denoiser,
    scales_that_are_asked_for,
    time_steps,
    loop_over_tokens,
    product_of_unknown_matrices,
    mask_times_itself,
    logarithm_of_a_mask,
    mask_of_pairs,
    crop_between_numbers,
    branch_on_an_extent,
    domain_of_inverses,
    domain_of_products,
)
