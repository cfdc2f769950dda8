"""Statistics of a stretch of memory on CUDA by a team of threads: a warp where stretches are short, else a block.

x is flat; a stretch is its elements lo..lo + length, which the team's threads take by slots of 16 bytes (lanes.py).
Sums of a slot are in the kernel's precision, of slots in float64, of threads by warp shuffles.
"""

from normcore.kernels import LANES, inline, real, wide
from normcore.kernels.lanes import inside, slot_at, slots_of, take
from normcore.kernels.packs import load_one
from normcore.kernels.warps import block_largest, block_sum, warp_largest, warp_sum
from normcore_normalization.channel_scalars import THREADS, trusted

TEAM = 32  # threads that share a stretch: a warp, or a block of THREADS
SHORT = 1024  # elements of a stretch that a warp takes


def team_of(stretches, length):
    """(threads of a team, launch extent)."""
    team = 32 if length <= SHORT else THREADS
    return team, (max(1, min(65536, -(-stretches * team // THREADS))), THREADS)


@inline
def team_sum(value, scratch):
    """The sum over the team's threads, to each of them. value: float64."""
    return warp_sum(value) if TEAM == 32 else block_sum(value, scratch)


@inline
def team_largest(value, scratch):
    """The largest value of the team's threads, to each of them; a NaN wins."""
    return warp_largest(value) if TEAM == 32 else block_largest(value, scratch)


@inline
def slot_sums(x, i, lo, hi, s, v):
    """Sums of u and u^2 for u = x - s over the slot at i of the stretch lo..hi. v: a local array of LANES."""
    take(x, i, lo, hi, v)
    u_sum = real(0)
    square_sum = real(0)
    for j in range(LANES):
        if inside(i + j, lo, hi):
            u = v[j] - s
            u_sum += u
            square_sum += u * u
    return wide(u_sum), wide(square_sum)


@inline
def team_sums(x, lo, length, lane, s, v, scratch):
    """Sums of u and u^2 for u = x - s over a stretch, in float64. v: as there."""
    total = wide(0)
    squares = wide(0)
    for slot in range(lane, slots_of(length), TEAM):
        u_sum, square_sum = slot_sums(x, slot_at(lo, slot), lo, lo + length, s, v)
        total += u_sum
        squares += square_sum
    return team_sum(total, scratch), team_sum(squares, scratch)


@inline
def team_squares_wide(x, lo, length, lane, mean, scratch):
    squares = wide(0)
    for i in range(lo + lane, lo + length, TEAM):
        u = wide(load_one(x, i)) - mean
        squares += u * u
    return team_sum(squares, scratch)


@inline
def team_statistics(x, lo, length, lane, eps, v, scratch):
    """Mean and biased variance of a stretch: relative to its first element, in float64 where that is far off."""
    count = wide(length)
    first = load_one(x, lo)
    total, squares = team_sums(x, lo, length, lane, first, v, scratch)
    if trusted(total, squares, count, eps):
        return wide(first) + total / count, (squares - total * total / count) / count
    total = wide(0)
    for i in range(lo + lane, lo + length, TEAM):
        total += wide(load_one(x, i)) - wide(first)
    mean = wide(first) + team_sum(total, scratch) / count
    return mean, team_squares_wide(x, lo, length, lane, mean, scratch) / count


@inline
def team_mean_square(x, lo, length, lane, eps, v, scratch):
    count = wide(length)
    _, squares = team_sums(x, lo, length, lane, real(0), v, scratch)
    if not trusted(wide(0), squares, count, eps):
        squares = team_squares_wide(x, lo, length, lane, wide(0), scratch)
    return squares / count
