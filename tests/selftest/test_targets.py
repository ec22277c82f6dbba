"""Each instruction set in a process of its own, whatever becomes of that."""

import dataclasses
import functools
import os
import signal

import pytest

from gossamer import kernels, selftest
from gossamer.selftest import targets

needs_kernels = pytest.mark.skipif(
    kernels.why_unavailable() is not None, reason=f"no kernels: {kernels.why_unavailable()}"
)


@pytest.fixture(scope="module")
def cases():
    return selftest.draw_cases()


def computing(case, function, *arguments):
    return dataclasses.replace(case, compute=functools.partial(function, *arguments))


@needs_kernels
def test_every_target_of_this_machine_is_right_and_is_told_of_when_done(cases):
    done = []
    names = kernels.targets()
    outcomes = selftest.run(cases, names, at_once=2, done=lambda: done.append(None))
    assert [outcome.target for outcome in outcomes] == list(names)
    assert len(done) == len(names)
    for outcome in outcomes:
        assert outcome.failure is None
        assert outcome.passed, [each for each in outcome.comparisons if not each.passed]
        assert len(outcome.comparisons) == len(cases)
        if outcome.target != names[0]:
            # Another order of sums: were it the same kernels, so were all errors.
            assert outcome.comparisons != outcomes[0].comparisons


@needs_kernels
def test_a_wrong_kernel_fails_its_target(cases):
    queries, keys, values = cases[-1].compute.args
    wrong = computing(cases[-1], cases[-1].compute.func, queries, -keys, values)
    [outcome] = selftest.run([cases[0], wrong], ["portable"])
    assert not outcome.passed
    assert outcome.failure is None
    assert [each.passed for each in outcome.comparisons] == [True, False]


@needs_kernels
def test_a_target_of_another_machine_fails_in_words(cases):
    [outcome] = selftest.run(cases[:1], ["abacus"])
    assert not outcome.passed
    assert "RuntimeError: " in outcome.failure
    assert "GOSSAMER_TARGET is 'abacus', but this machine has" in outcome.failure


def test_a_process_that_crashes_fails_its_target_by_name(cases):
    [outcome] = selftest.run(
        [computing(cases[0], signal.raise_signal, signal.SIGKILL)], ["portable"]
    )
    assert not outcome.passed
    assert outcome.failure == "ended by SIGKILL"


def test_a_process_that_ends_without_a_word_fails_with_its_status(cases):
    [outcome] = selftest.run([computing(cases[0], os._exit, 3)], ["portable"])
    assert outcome.failure == "exit status 3"


def test_a_process_that_hangs_is_ended(monkeypatch, cases):
    monkeypatch.setattr(targets, "MOST_SECONDS", 0.01)
    [outcome] = selftest.run(cases[:1], ["portable"])
    assert not outcome.passed
    assert outcome.failure == "not done after 0 s"
