"""Unit normals in Triton, for kernels that make them where they use them; imports triton.

A key is (seed, index's low word, its high word, stream), as scalars or of a shape that broadcasts;
numbers are those of `sidfast.ops.random`.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def normals_of_counters(key: tl.tuple, counter: tl.tensor) -> tl.tensor:
    """The four normals of each counter, one after the other in the last dimension."""
    seed, low, high, stream = key
    r0, r1, r2, r3 = tl.philox(seed, counter.to(tl.uint32), low, high, stream)
    e0, e1 = box_muller(r0, r1)
    e2, e3 = box_muller(r2, r3)
    return tl.interleave(tl.interleave(e0, e2), tl.interleave(e1, e3))


@triton.jit
def normals_of_elements(key: tl.tuple, element: tl.tensor) -> tl.tensor:
    """The normal of each element, for elements in any order."""
    seed, low, high, stream = key
    r0, r1, r2, r3 = tl.philox(seed, (element >> 2).to(tl.uint32), low, high, stream)
    first, second = tl.where(element & 2 == 0, r0, r2), tl.where(element & 2 == 0, r1, r3)
    cosine, sine = box_muller(first, second)
    return tl.where(element & 1 == 0, cosine, sine)


@triton.jit
def box_muller(a: tl.tensor, b: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """(R cos 2 pi v, R sin 2 pi v) of words a and b; polynomials as in csrc/base/box_muller.h.

    The hardware's logarithm is too coarse near u = 1, where R is its square root.
    """
    # u = 2^k (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)).
    bits = ((a >> 8) + 1).to(tl.float32).to(tl.uint32, bitcast=True)
    offset = bits - ((24 << 23) + 0x3F3504F3)
    k = (offset.to(tl.int32, bitcast=True) >> 23).to(tl.float32)
    f = ((offset & 0x007FFFFF) + 0x3F3504F3).to(tl.float32, bitcast=True) - 1.0
    # -2 ln(1 + f) = -2 f + f^2 q(f), minimax in relative error 3e-8.
    q = tl.fma(f, -0.17469697, 0.28615046)
    q = tl.fma(q, f, -0.29835945)
    q = tl.fma(q, f, 0.33141017)
    q = tl.fma(q, f, -0.39924145)
    q = tl.fma(q, f, 0.5000351)
    q = tl.fma(q, f, -0.666679)
    q = tl.fma(q, f, 0.9999998)
    minus_two_log = tl.fma(tl.fma(q, f, -2.0), f, k * -1.38629436)
    radius = tl.sqrt(tl.maximum(minus_two_log, 0.0))

    # The angle in quarter turns is quadrant + y, y in [-1/2, 1/2): both exact.
    angle = b & 0xFFFFFF00
    quadrant = angle + 0x20000000  # in the two top bits
    y = (angle << 2).to(tl.int32, bitcast=True).to(tl.float32) * 2.0**-32
    z = y * y
    s = tl.fma(z, -0.0045923316, 0.07967592)
    s = tl.fma(s, z, -0.64596295)
    s = tl.fma(s, z, 1.5707963) * y
    c = tl.fma(z, -0.020427227, 0.25360674)
    c = tl.fma(c, z, -1.233698)
    c = tl.fma(c, z, 1.0)
    odd = quadrant & 0x40000000 != 0
    cosine_sign, sine_sign = (quadrant + 0x40000000) & 0x80000000, quadrant & 0x80000000
    cosine = tl.where(odd, s, c).to(tl.uint32, bitcast=True) ^ cosine_sign
    sine = tl.where(odd, c, s).to(tl.uint32, bitcast=True) ^ sine_sign
    return radius * cosine.to(tl.float32, bitcast=True), radius * sine.to(tl.float32, bitcast=True)
