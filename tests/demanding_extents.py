"""Small models whose extents have to agree, or to be something, each a kind that users bring."""

import numpy as np
from onnx import ModelProto

from tests.small_models import normal, parsed

INT = {"zero": np.array([0]), "one": np.array([1]), "two": np.array([2]), "far": np.array([2**62])}
LOWEST = np.array(np.finfo(np.float32).min)


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


def states_of_an_unnamed_batch() -> ModelProto:
    return parsed(
        """g (float[?,?,16] x, float[1,?,8] h, float[1,?,8] c)
            => (float[a,b,d,e] y, float[f,g,i] hn, float[j,k,l] cn) {
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
        """g (float[?,3,?,?] image, float[?,2] im_shape, float[?,2] scale_factor)
            => (float[n,c,h,w] f, float[n,d] y) {
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


def past_key_values() -> ModelProto:
    return parsed(
        """g (int64[?,?] ids, float[?,2,?,4] past, int64[?,?] mask)
            => (float[a,b,c,d] y, float[e,f,g,h] present) {
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
                num_scan_inputs = 2, body = l (float[n] s, float[n] u, float[n] v)
            => (float[n] t, float[n] o) {
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


def branch_with_a_cache() -> ModelProto:
    return parsed(
        """g (float[b,s,4] x, float[b,p,4] past, bool use) => (float[b,t,4] y) {
            y = If (use) <
                then_branch = a () => (float[b,t,4] u) { u = Concat <axis=1> (past, x) },
                else_branch = e () => (float[b,t,4] v) { v = Add (x, past) }
            >
        }""",
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
        """g (float[1,N,2] points, float[1,N] labels, float[2] size, float[1,1,16,16] low)
            => (float[a,b,c,d] y, float[1,N,2] p) {
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


def product_of_unknown_matrices() -> ModelProto:
    return parsed(
        """g (float[?,?] a, float[?,?] b2) => (float[?,?] y) {
            m = MatMul (a, b2)
            y = Concat <axis=0> (m, c)
        }""",
        c=normal(3, 7),
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


ALL = (
    positions_sliced_from_a_table,
    longest_length_is_the_time,
    states_of_an_unnamed_batch,
    u_net,
    two_towers,
    detection_head,
    trip_count,
    past_key_values,
    tokens_of_one_number,
    receptive_field,
    size_that_is_asked_for,
    shapes_that_are_inputs,
    attention_by_letters,
    scanned_together,
    most_of_a_long_axis,
    windows_of_seven,
    rows_in_fours,
    range_that_is_asked_for,
    branch_with_a_cache,
    class_token_for_each_row,
    prompts_of_points,
    denoiser,
    scales_that_are_asked_for,
    product_of_unknown_matrices,
    crop_between_numbers,
    branch_on_an_extent,
)
