"""Sequences of N:M patterns that tighten to a target."""

import math

from gossamer.sparsity.patterns import NM, Pattern


def require_nm(method: object, path: str, pattern: Pattern) -> NM:
    """The pattern, if it is N:M.

    Raises:
        ValueError: it is another.
    """
    if not isinstance(pattern, NM):
        raise ValueError(
            f"{type(method).__name__} tightens N:M patterns, and {path} has {pattern}."
        )
    return pattern


def stepwise(target: NM) -> list[NM]:
    """M-1:M, then half of M, a quarter, ... to N:M, whether N is a power of two or not.

    Example:
        >>> print(*stepwise(NM(1, 16)))
        15:16 8:16 4:16 2:16 1:16
        >>> print(*stepwise(NM(3, 8)))
        7:8 4:8 3:8

    Source: Bambhaniya et al. 2024, arXiv 2402.04744; its code never gets to 3:8.
    """
    counts = [target.m - 1]
    kept = target.m // 2
    while kept > target.n:
        counts.append(kept)
        kept //= 2
    return [NM(n, target.m) for n in dict.fromkeys(c for c in counts if c > target.n)] + [target]


def quartering(target: NM) -> list[NM]:
    """M:M, M-1:M, then ceil(M / 2^u):M from u = 2, to N:M.

    Example:
        >>> print(*quartering(NM(1, 16)))
        16:16 15:16 4:16 2:16 1:16

    Source: the code of 2209.07617 in AQT, which leaves out M/2:M.
    """
    counts, u = [target.m, target.m - 1], 2
    while (kept := math.ceil(target.m / 2**u)) > target.n:
        counts.append(kept)
        u += 1
    return [NM(n, target.m) for n in dict.fromkeys(c for c in counts if c > target.n)] + [target]


def geometric(target: NM, largest: int) -> list[NM]:
    """kN:kM for k = `largest`, half of it, ... 1.

    Example:
        >>> print(*geometric(NM(1, 8), 16))
        16:128 8:64 4:32 2:16 1:8

    Source: Bambhaniya et al. 2024, arXiv 2402.04744.
    """
    factors = [largest >> i for i in range(largest.bit_length())]
    return [NM(k * target.n, k * target.m) for k in factors]
