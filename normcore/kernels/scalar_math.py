"""Scalar mathematics for CPU kernels, written so that LLVM vectorizes the loops they are inlined into.

Straight-line arithmetic, selects and bit casts only: no branches, tables, integer division, and no float64 in
the float32 ones. The largest error over all float32 numbers is given with each function, in units in the last
place (ulp), measured against float64 on a machine with fused multiply-add; tests/kernels/test_scalar_math.py
holds the bars. Infinities, NaN, signed zeros, denormal arguments and results are right. `contract` is the only
fast-math flag under which this holds: `reassoc` would remove the rounding trick in exp and the compensated sums.

Polynomials are summed in pairs, (c0 + c1 x) + x^2 ((c2 + c3 x) + x^2 ...): about as many operations as Horner's rule
and half as many after one another, and a processor keeps too few operations waiting to hide long chains by the
elements that follow (a quarter of softplus's time with 256-bit vectors). Where the rounding of the last sums shows,
the lowest two coefficients are added in Horner's way.

Kernels reach these by writing math.exp and so on: `CPU_MATH` binds the names (normcore/kernels/source.py).
What it lacks stays math.*, that is libm, right but scalar. Coefficients: benches/fit_scalar_math.py.

scalar_math32.py     exp, expm1, log, log1p, tanh      error_function.py   erf, erfc
scalar_math64.py     their float64 twins              trigonometry.py     sin, cos
"""

from normcore.kernels.error_function import erf_f32, erfc_f32
from normcore.kernels.scalar_math32 import exp_f32, expm1_f32, log1p_f32, log_f32, tanh_f32
from normcore.kernels.scalar_math64 import exp_f64, expm1_f64, log1p_f64, log_f64, tanh_f64
from normcore.kernels.trigonometry import cos_f32, sin_f32

# What math.<name> becomes in CPU kernels, by dtype.
CPU_MATH = {
    "float32": {
        "exp": exp_f32,
        "expm1": expm1_f32,
        "log": log_f32,
        "log1p": log1p_f32,
        "tanh": tanh_f32,
        "erf": erf_f32,
        "erfc": erfc_f32,
        "sin": sin_f32,
        "cos": cos_f32,
    },
    "float64": {"exp": exp_f64, "expm1": expm1_f64, "log": log_f64, "log1p": log1p_f64, "tanh": tanh_f64},
}
