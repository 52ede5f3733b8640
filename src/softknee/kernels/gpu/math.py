"""The primitives of the GPU kernels in float32, of plain arithmetic alone, so that Triton's interpreter runs them too.

An amplifying primitive takes its argument as a sum u + r, r what rounding left of it: exp multiplies the relative
error of its argument by the argument. A product's exact part is that of 12-bit heads, which no fused multiply-add
changes. As in `backends/floats.py`, the exponent is applied last. The polynomials of exp, log, tanh, atan, sin and cos
are those of Cephes (S. Moshier, single precision); erf's and erfcx's are Chebyshev series.
"""

import triton
import triton.language as tl


@triton.jit
def head(a):
    """The first 12 bits."""
    return (a.to(tl.int32, bitcast=True) & -4096).to(tl.float32, bitcast=True)


@triton.jit
def total(u, r, plainly):
    """u + r as the nearest number and the rest; where there is none, `plainly` and 0."""
    s = u + r
    rest = r - (s - u)
    return tl.where(s == s, s, plainly), tl.where(rest == rest, rest, 0.0)


@triton.jit
def product(a, ra, b, rb):
    ha = head(a)
    hb = head(b)
    return total(ha * hb, ha * ((b - hb) + rb) + ((a - ha) + ra) * b, a * b)


@triton.jit
def plus(a, ra, b, rb):
    s = a + b
    t = s - a
    rest = ((a - (s - t)) + (b - t)) + (ra + rb)
    return total(s, tl.where(rest == rest, rest, 0.0), s)


@triton.jit
def two_to(k):
    return ((k + 127) << 23).to(tl.float32, bitcast=True)


@triton.jit
def finite(a):
    large = 1.3292279e36  # the largest / 256
    return tl.where(a > large, large, tl.where(a < -large, -large, a))


@triton.jit
def reduced(u, r):
    """n and t of u + r = n·ln 2 + t, and exp(t) − 1 − t"""
    u = tl.where(u < -194.0, -194.0, tl.where(u > 194.0, 194.0, u))
    n = tl.floor(u * 1.4426950408889634 + 0.5)
    t = ((u - n * 0.693359375) + n * 2.12194440e-4) + r
    p = (1.3981999507e-3 + 1.9875691500e-4 * t) * t + 8.3334519073e-3
    p = (p * t + 4.1665795894e-2) * t + 1.6666665459e-1
    return n, t, (p * t + 5.0000001201e-1) * (t * t)


@triton.jit
def scaled(a, u, r):
    """a·exp(u + r), the power of two in three parts, the last ones last"""
    n, t, p = reduced(u, r)
    k = tl.where(n == n, n, 0.0).to(tl.int32)
    third = k // 3
    s = two_to(third)
    return ((a * s) * (1.0 + (t + p))) * s * two_to(k - 2 * third)


@triton.jit
def exp(u, r):
    return scaled(1.0, u, r)


@triton.jit
def exp_times(a, u, r):
    return scaled(tl.where(u < 0.0, finite(a), a), u, r)


@triton.jit
def expm1(u):
    # 2ⁿ·(exp(t) − 1) + (2ⁿ − 1)
    n, t, p = reduced(u, 0.0)
    k = tl.where(n == n, n, 0.0).to(tl.int32)
    s = two_to(tl.where(k > 127, 127, tl.where(k < -126, -126, k)))
    value = s * (t + p) + (s - 1.0)
    return tl.where(u == 0.0, u, tl.where(k > 127, exp(u, 0.0), value))


@triton.jit
def log(x):
    small = x < 1.17549435e-38
    m = tl.where(small, x * 8388608.0, x)
    bits = m.to(tl.int32, bitcast=True) - 0x3F3504F3  # of √½
    e = (bits >> 23).to(tl.float32) - tl.where(small, 23.0, 0.0)
    f = ((bits & 0x7FFFFF) + 0x3F3504F3).to(tl.float32, bitcast=True) - 1.0
    p = (7.0376836292e-2 * f - 1.1514610310e-1) * f + 1.1676998740e-1
    p = ((p * f - 1.2420140846e-1) * f + 1.4249322787e-1) * f - 1.6668057665e-1
    p = ((p * f + 2.0000714765e-1) * f - 2.4999993993e-1) * f + 3.3333331174e-1
    z = f * f
    value = (f + ((p * f * z - 2.12194440e-4 * e) - 0.5 * z)) + 0.693359375 * e
    value = tl.where(x > 0.0, value, tl.where(x == 0.0, float("-inf"), float("nan")))
    return tl.where(x == float("inf"), x, value)


@triton.jit
def log1p(x):
    u = 1.0 + x
    inside = (u > 0.0) & (x < 1e30)
    rest = tl.where(inside, tl.div_rn(x - (u - 1.0), tl.where(inside, u, 1.0)), 0.0)
    return tl.where(u == 1.0, x, log(u) + rest)


@triton.jit
def sqrt(x):
    return tl.sqrt_rn(x)


@triton.jit
def turned(u, r):
    """The quadrant, and the sine and cosine of what is left, by a reduction in float64: to |u| = 2²⁸."""
    x = u.to(tl.float64) + r
    n = tl.floor(x * 0.6366197723675814 + 0.5)
    t = ((x - n * 1.5707963267341256) - n * 6.077100506506192e-11).to(tl.float32)
    z = t * t
    s = ((-1.9515295891e-4 * z + 8.3321608736e-3) * z - 1.6666654611e-1) * z * t + t
    c = ((2.443315711809948e-5 * z - 1.388731625493765e-3) * z + 4.166664568298827e-2) * z * z - 0.5 * z + 1.0
    return tl.where(tl.abs(n) < 1e18, n, 0.0).to(tl.int64) & 3, s, c


@triton.jit
def sin(u, r):
    q, s, c = turned(u, r)
    value = tl.where((q & 1) == 0, s, c)
    return tl.where(u == 0.0, u, tl.where(q > 1, -value, value))


@triton.jit
def cos(u, r):
    q, s, c = turned(u, r)
    value = tl.where((q & 1) == 0, c, s)
    return tl.where((q == 1) | (q == 2), -value, value)


@triton.jit
def atan(x):
    a = tl.abs(x)
    far = a > 2.414213562373095
    middle = (a > 0.4142135623730950) & (a <= 2.414213562373095)
    t = tl.div_rn(tl.where(far, -1.0, tl.where(middle, a - 1.0, a)), tl.where(far, a, tl.where(middle, a + 1.0, 1.0)))
    z = t * t
    p = ((8.05374449538e-2 * z - 1.38776856032e-1) * z + 1.99777106478e-1) * z - 3.33329491539e-1
    value = (p * z * t + t) + tl.where(far, 1.5707963267948966, tl.where(middle, 0.7853981633974483, 0.0))
    return tl.where(x < 0.0, -value, tl.where(x == 0.0, x, value))


@triton.jit
def tanh(u, r):
    z = u * u
    p = (-5.70498872745e-3 * z + 2.06390887954e-2) * z - 5.37397155531e-2
    small = (((p * z + 1.33314422036e-1) * z - 3.33332819422e-1) * z * u + r) + u
    e = decay(2.0 * u, 2.0 * r)
    large = 1.0 - tl.div_rn(2.0 * e, 1.0 + e)
    return tl.where(tl.abs(u) < 0.625, small, tl.where(u < 0.0, -large, large))


@triton.jit
def decay(u, r):
    """exp(−|u + r|)"""
    return scaled(1.0, -tl.abs(u), tl.where(u < 0.0, r, -r))


@triton.jit
def decay_times(a, u, r):
    return scaled(a, -tl.abs(u), tl.where(u < 0.0, r, -r))


@triton.jit
def sigmoid(u, r):
    e = decay(u, r)
    w = tl.div_rn(tl.where(e == e, 1.0, e), 1.0 + e)
    return tl.where(u < 0.0, decay_times(w, u, r), w)


@triton.jit
def sigmoid_times(a, u, r):
    w = tl.div_rn(tl.where(u < 0.0, finite(a), a), 1.0 + decay(u, r))
    return tl.where(u < 0.0, decay_times(w, u, r), w)


@triton.jit
def sigmoid_slope(a, b, u, r):
    """σ(u)·(a + b·σ(−u))"""
    return sigmoid_times(a + sigmoid_times(b, -u, -r), u, r)


@triton.jit
def sech2_half_times(a, u, r):
    """a·sech²((u + r)/2)"""
    e = 1.0 + decay(u, r)
    return decay_times(tl.div_rn(4.0 * finite(a), e * e), u, r)


@triton.jit
def sech2_half(u, r):
    e = 1.0 + decay(u, r)
    return decay_times(tl.div_rn(tl.where(e == e, 4.0, e), e * e), u, r)


@triton.jit
def softplus(u, r):
    return tl.where(u < 0.0, 0.0, u + r) + log1p(decay(u, r))


@triton.jit
def erf_near(x):
    z = x * x
    p = (7.88249709856359e-05 * z - 0.0008018854989721547) * z + 0.00518931194238874
    p = ((p * z - 0.02685432879593729) * z + 0.11283597463485394) * z - 0.37612626903580115
    return x * (p * z + 1.1283791658815023)


@triton.jit
def erfcx(x):
    """exp(x²)·erfc(x) for x ≥ ½: a polynomial for (x + 2)·erfcx(x)"""
    d = x + 2.0
    t = 1.0 - tl.div_rn(tl.where(d == d, 5.0, d), d)
    p = (-4.132141384616261e-06 * t + 6.705078249069629e-06) * t + 4.443148645805195e-05
    p = ((p * t - 4.6763736463617533e-05) * t - 0.0003553987480700016) * t + 0.00032457400811836123
    p = ((p * t + 0.0030166166834533215) * t - 0.005521637853235006) * t - 0.025918910279870033
    p = ((p * t + 0.1619390845298767) * t - 0.4643007516860962) * t + 0.8950057625770569
    return tl.div_rn(p, d)


@triton.jit
def erfc_times(a, u, r):
    v = tl.abs(u)
    v = tl.where(v < 0.5, 0.5, v)
    s = tl.where(u < 0.0, -r, r)
    square, rest = product(v, s, v, s)
    tail = scaled(tl.where(u > 0.5, finite(a) * erfcx(v), erfcx(v)), -square, -rest)
    return tl.where(u > 0.5, tail, a * tl.where(u < -0.5, 2.0 - tail, 1.0 - erf_near(u)))


@triton.jit
def erfc(u, r):
    return erfc_times(tl.where(u == u, 1.0, u), u, r)


@triton.jit
def erf(u):
    v = tl.abs(u)
    far = 1.0 - erfc(v, 0.0)
    return tl.where(v < 0.75, erf_near(u), tl.where(u < 0.0, -far, far))


@triton.jit
def x_phi_times(a, x):
    """a·x·Φ(x) = ½·a·x·erfc(−x/√2)"""
    u, r = product(x, 0.0, tl.where(x == x, -0.70710678, x), tl.where(x == x, -1.21016175e-08, 0.0))
    return erfc_times(0.5 * a * x, u, r)


@triton.jit
def x_phi(x):
    return x_phi_times(1.0, x)


@triton.jit
def x_phi_slope(x):
    """Φ(x) + x·φ(x), in the tail φ(x)·(x + Φ/φ)"""
    u, r = product(x, 0.0, tl.where(x == x, -0.70710678, x), tl.where(x == x, -1.21016175e-08, 0.0))
    square, rest = product(x, 0.0, 0.5 * x, 0.0)
    far = u > 0.5
    term = 0.3989422804014327 * finite(x) + tl.where(far, 0.5 * erfcx(tl.where(far, u, 0.5)), 0.0)
    density = scaled(term, -square, -rest)
    return tl.where(far, density, 0.5 * erfc(u, r) + density)


@triton.jit
def sign(x):
    return tl.where(x > 0.0, 1.0, tl.where(x < 0.0, -1.0, x))


@triton.jit
def maximum(a, b):
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def minimum(a, b):
    return tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)
