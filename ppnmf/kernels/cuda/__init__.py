"""The kernels for NVIDIA GPUs, in Triton: what `reference` defines, chains, replicates or particles as an axis of the grid.

A half-sweep gives each thread one row of a factor, which it takes through its K components without a word to the others;
rows lie side by side (a component a row), so the threads of a warp read and write together, and what a warp re-reads for
the next component is in its cache. A scale move is one launch, a round of shear moves one. Nothing waits for the host.

Sums over components are taken in the factor's own type, as in the reference, without the component that is drawn; the
draw itself is always in float64. Its uniform has 52 bits, which u near 0 and 1 and a bound far in the tail need, and
float32 would take a second set of formulas. A data-centre card has double precision at half its single rate; with a
consumer card's 1/64 the draws are, by count of operations, of the order of reading X. A draw is the tail-safe inverse of
one uniform, not rejection: so it is the reference's to rounding, address by address, and the threads of a warp do the
same work. The tail's steps are skipped by a warp that has no row there.

Triton's interpreter runs the same code on the CPU; it knows no libdevice, hence expm1 and log1p by plain arithmetic.
"""

from ppnmf.kernels.cuda.residual import residual_where_small
from ppnmf.kernels.cuda.ridge import moved, scale_move, shear_move
from ppnmf.kernels.cuda.rows import half_sweep, inverse_gamma

__all__ = ["half_sweep", "inverse_gamma", "moved", "residual_where_small", "scale_move", "shear_move"]
