r"""Goodput of one training run that fails now and then: checkpoints and in-memory replicas.

Failures are independent, at a constant rate. After one the run restarts and repeats what it did
since its last checkpoint; goodput is the share of time in which new steps are made. Seconds to be
expected for one interval :math:`\tau` of new work, with checkpoints of :math:`\delta`, restarts of
:math:`R`, and a mean time between failures :math:`M`, failures of restarts included:

.. math:: M e^{R / M} \left( e^{(\tau + \delta) / M} - 1 \right)

Source: Daly, "A higher order estimate of the optimum checkpoint interval for restart dumps", Future
Generation Computer Systems 22 (2006), doi 10.1016/j.future.2004.11.016. Of it only
abstract and captions were at hand, whose three intervals `daly_interval` gives.
"""

import math

import numpy as np


def slice_failure_seconds(host_failure_seconds: float, hosts: int) -> float:
    """Mean time between failures of a slice whose hosts fail independently.

    Args:
        host_failure_seconds: mean time between the failures of one host.
        hosts: of the slice.

    Example:
        >>> slice_failure_seconds(1000 * 3600.0, 500) / 3600
        2.0
    """
    _check_positive(host_failure_seconds=host_failure_seconds, hosts=float(hosts))
    return host_failure_seconds / hosts


def young_interval(*, checkpoint_seconds: float, failure_seconds: float) -> float:
    r"""Seconds of work between checkpoints, to first order: :math:`\sqrt{2 \delta M}`.

    Source: Young, "A first order approximation to the optimum checkpoint interval", Communications
    of the ACM 17 (1974).
    """
    _check_positive(checkpoint_seconds=checkpoint_seconds, failure_seconds=failure_seconds)
    return math.sqrt(2 * checkpoint_seconds * failure_seconds)


def daly_interval(*, checkpoint_seconds: float, failure_seconds: float) -> float:
    r"""Seconds of work between checkpoints, to a higher order.

    .. math:: \sqrt{2 \delta M} \left( 1 + \frac{1}{3} \sqrt{\frac{\delta}{2 M}} +
        \frac{1}{9} \frac{\delta}{2 M} \right) - \delta

    and :math:`M` where checkpoints take :math:`2 M` or more.

    Example:
        >>> round(daly_interval(checkpoint_seconds=300.0, failure_seconds=86400.0) / 60)
        117

    Source: Daly 2006, doi 10.1016/j.future.2004.11.016.
    """
    first = young_interval(checkpoint_seconds=checkpoint_seconds, failure_seconds=failure_seconds)
    ratio = checkpoint_seconds / (2 * failure_seconds)
    if ratio >= 1:
        return failure_seconds
    return first * (1 + math.sqrt(ratio) / 3 + ratio / 9) - checkpoint_seconds


def best_interval(*, checkpoint_seconds: float, failure_seconds: float) -> float:
    r"""Seconds of work between checkpoints that waste least, exactly.

    It solves :math:`(1 - x) e^x = e^{-\delta / M}` for :math:`x = \tau / M`, the minimum of the
    expected seconds a second of work.

    Example:
        >>> round(best_interval(checkpoint_seconds=300.0, failure_seconds=86400.0) / 60, 1)
        116.7
    """
    _check_positive(checkpoint_seconds=checkpoint_seconds, failure_seconds=failure_seconds)
    wanted = -checkpoint_seconds / failure_seconds
    low, high = 0.0, 1.0
    while (middle := (low + high) / 2) not in (low, high):
        # log1p(-x) + x falls from 0 to minus infinity.
        low, high = (middle, high) if math.log1p(-middle) + middle > wanted else (low, middle)
    return low * failure_seconds


def checkpoint_goodput(
    *,
    failure_seconds: float,
    restart_seconds: float,
    checkpoint_seconds: float,
    interval_seconds: float | None = None,
) -> float:
    """Share of time in which new steps are made, with checkpoints on storage.

    Args:
        failure_seconds: mean time between failures of the slice.
        restart_seconds: from a failure until steps are made again, waiting for chips included:
            with spare cubes and optical switches seconds of switching, without them a repair.
        checkpoint_seconds: that a checkpoint holds up the steps.
        interval_seconds: of work between checkpoints; None takes the best.

    Example:
        >>> hour = 3600.0
        >>> share = checkpoint_goodput(
        ...     failure_seconds=3 * hour, restart_seconds=480.0, checkpoint_seconds=60.0)
        >>> round(share, 3)
        0.859
    """
    _check_positive(failure_seconds=failure_seconds)
    _check_not_negative(restart_seconds=restart_seconds, checkpoint_seconds=checkpoint_seconds)
    if interval_seconds is None:
        interval_seconds = best_interval(
            checkpoint_seconds=checkpoint_seconds, failure_seconds=failure_seconds
        )
    _check_positive(interval_seconds=interval_seconds)
    exponent = (interval_seconds + checkpoint_seconds) / failure_seconds
    if exponent + restart_seconds / failure_seconds > 700:  # beyond a float: nothing is ever done
        return 0.0
    expected = math.exp(restart_seconds / failure_seconds) * math.expm1(exponent)
    return interval_seconds / failure_seconds / expected


def replica_goodput(
    *,
    failure_seconds: float,
    restart_seconds: float,
    step_seconds: float,
    copy_seconds: float = 0.0,
) -> float:
    """Share of time in which new steps are made, with the state kept in other chips' memory too.

    After a failure the state comes from an intact replica: at most one step is repeated. That is a
    checkpoint after each step, which takes next to nothing.

    Args:
        failure_seconds: mean time between failures of the slice.
        restart_seconds: from a failure until steps are made again; no storage is read.
        step_seconds: of a step.
        copy_seconds: that the copy of a step's state holds up the next; 0 where data parallelism
            has the copies anyway, or they are sent while steps run.

    Example:
        >>> hour = 3600.0
        >>> share = replica_goodput(
        ...     failure_seconds=3 * hour, restart_seconds=300.0, step_seconds=5.0)
        >>> round(share, 3)
        0.972

    Source: Gemini Team 2023, arXiv 2312.11805, on training infrastructure, which
    reports a goodput of 97 %, and 85 % before with checkpoints on storage, and neither failure
    rates nor times.
    """
    _check_positive(step_seconds=step_seconds)
    return checkpoint_goodput(
        failure_seconds=failure_seconds,
        restart_seconds=restart_seconds,
        checkpoint_seconds=copy_seconds,
        interval_seconds=step_seconds,
    )


def simulate_recovery(
    *,
    failure_seconds: float,
    restart_seconds: float,
    checkpoint_seconds: float,
    interval_seconds: float,
    intervals: int = 100_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Goodput of a simulated run and its standard error; see `checkpoint_goodput`.

    Every interval draws its failures until it passes whole; all intervals are drawn side by side.

    Args:
        failure_seconds: mean time between failures of the slice.
        restart_seconds: from a failure until steps are made again.
        checkpoint_seconds: that a checkpoint holds up the steps.
        interval_seconds: of work between checkpoints.
        intervals: that the run consists of.
        seed: the same gives the same.

    Raises:
        ValueError: a time is negative, or more than ten times what passes between failures.
    """
    _check_positive(failure_seconds=failure_seconds, interval_seconds=interval_seconds)
    _check_not_negative(restart_seconds=restart_seconds, checkpoint_seconds=checkpoint_seconds)
    if intervals < 2:
        raise ValueError(f"A standard error needs 2 intervals or more, got {intervals}.")
    longest = max(restart_seconds, interval_seconds + checkpoint_seconds)
    if longest > 10 * failure_seconds:
        raise ValueError(
            f"{longest:g} s without a failure are too rare to wait for where one comes every "
            f"{failure_seconds:g} s; `checkpoint_goodput` gives the expectation."
        )
    generator = np.random.default_rng(seed)
    spent = np.zeros(intervals)
    going, restarting = np.arange(intervals), np.zeros(intervals, bool)
    while len(going):
        needed = np.where(restarting, restart_seconds, interval_seconds + checkpoint_seconds)
        until_failure = generator.exponential(failure_seconds, len(going))
        fails = until_failure < needed
        spent[going] += np.minimum(until_failure, needed)
        passed = ~fails & ~restarting
        # Whoever failed restarts; whoever restarted works; whoever worked is done.
        going, restarting = going[~passed], fails[~passed]
    share = interval_seconds / float(spent.mean())
    return share, share * float(spent.std(ddof=1) / spent.mean()) / math.sqrt(intervals)


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} needs to be positive, got {value}.")


def _check_not_negative(**values: float) -> None:
    for name, value in values.items():
        if not value >= 0:
            raise ValueError(f"{name} needs to be 0 or more, got {value}.")
