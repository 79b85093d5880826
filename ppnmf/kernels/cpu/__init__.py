"""The kernels for the CPU, compiled by Numba: what `reference` defines, a block of rows at a time with its K steps in cache.

The rows of a block are the lanes of the vector registers; factors are stored a component a row, so that lanes lie side
by side. Every function releases the GIL, works on one thread and computes in float64 whatever the arrays hold; callers
run blocks and chains on several threads. The draws are the reference's, address by address, to rounding.
"""

from ppnmf.kernels.cpu.positive import inverse_gamma
from ppnmf.kernels.cpu.ridge import moved, room_for_moves, scale_move, shear_move
from ppnmf.kernels.cpu.rows import half_sweep

__all__ = ["half_sweep", "inverse_gamma", "moved", "room_for_moves", "scale_move", "shear_move"]
