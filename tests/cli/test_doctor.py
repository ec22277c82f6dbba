import json
import pathlib

import pytest

from gossamer import kernels
from gossamer.kernels import library, processor
from gossamer.kernels.processor import Processor
from gossamer.selftest import Comparison, Outcome

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "cli.md"
needs_kernels = pytest.mark.skipif(
    kernels.why_unavailable() is not None, reason=f"no kernels: {kernels.why_unavailable()}"
)


@pytest.fixture(autouse=True)
def _as_users_have_it(monkeypatch):
    monkeypatch.delenv("GOSSAMER_REQUIRE_KERNELS", raising=False)
    monkeypatch.delenv("GOSSAMER_TARGET", raising=False)


@pytest.fixture
def _without_kernels(monkeypatch):
    monkeypatch.setattr(library, "_library", lambda: "The compiler is on holiday; call it back.")


def compared(error: float, rows: int = 1) -> Comparison:
    return Comparison(what="int4", shape=f"rows: {rows}", relative_error=error, allowed=1e-6)


@pytest.fixture
def found(monkeypatch):
    """Puts what a self-test finds in the place of a real one, on a machine with two targets."""

    def found(*outcomes: Outcome) -> None:
        monkeypatch.setattr("gossamer.selftest.run", lambda *_, **__: list(outcomes))
        monkeypatch.setattr("gossamer.selftest.draw_cases", list)
        monkeypatch.setattr("gossamer.kernels.bandwidth.read_gb_per_second", lambda **_: 12.34)
        monkeypatch.setattr(library, "why_unavailable", lambda: None)
        monkeypatch.setattr(library, "targets", lambda: ("fast", "portable"))

    return found


def keys(value: object) -> set[str]:
    """All names in a result, but those of features."""
    if isinstance(value, list):
        return set().union(*map(keys, value))
    if isinstance(value, dict):
        below = (keys(item) for name, item in value.items() if name != "features")
        return set(value).union(*below)
    return set()


@needs_kernels
def test_the_kernels_of_this_machine_pass_and_json_has_the_keys_of_the_documentation(gossamer):
    got = gossamer("doctor", "--json").json()
    text = PAGE.read_text(encoding="utf-8").partition("## doctor")[2]
    assert [key for key in keys(got) if f"`{key}`" not in text] == []
    assert got["kernels"]["why_unavailable"] is None
    assert [outcome["target"] for outcome in got["selftest"]] == got["kernels"]["targets"]
    assert got["kernels"]["target"] in kernels.targets()
    for outcome in got["selftest"]:
        assert outcome["passed"]
        assert all(each["relative_error"] <= each["allowed"] for each in outcome["comparisons"])
    assert all(speed > 0.1 for speed in got["read_gb_per_second"].values())
    assert got["processor"]["threads"] == processor.threads()


def test_a_reader_sees_versions_processor_kernels_and_the_worst_error_of_each_kind(
    gossamer, found, monkeypatch
):
    features = {"avx2": True, "fma": True, "avx512f": False}
    monkeypatch.setattr(processor, "read", lambda: Processor(name="Abacus 9", features=features))
    monkeypatch.setattr(processor, "threads", lambda: 7)
    found(
        Outcome(target="fast", comparisons=(compared(3e-7), compared(4e-7), compared(2e-7))),
        Outcome(target="portable", comparisons=(compared(0.0),)),
    )
    outcome = gossamer("doctor")
    assert outcome.status == 0
    versions, *rest = outcome.out.splitlines()
    assert versions.startswith("gossamer ")
    assert ", jax " in versions
    assert rest == [
        "processor: Abacus 9; threads to use: 7",
        "features: avx2 fma; missing: avx512f",
        "native kernels: fast; available: fast, portable",
        "memory: 12.3 GB/s are read by one thread, 12.3 by all",
        "self-test: the largest error, relative to the sizes of what is summed",
        "        fast            portable",
        "  int4  passed 4.0e-07  passed 0.0e+00",
    ]
    assert "reading memory: 2/2" in outcome.err


def test_what_is_not_known_of_a_processor_is_said(gossamer, found, monkeypatch):
    monkeypatch.setattr(processor, "read", lambda: Processor(name=None, features=None))
    found()
    lines = gossamer("doctor").out.splitlines()
    assert lines[1].startswith("processor: unknown; ")
    assert lines[2] == "features: unknown"


@pytest.mark.parametrize("error", [2e-6, float("nan")])
def test_a_wrong_kernel_fails_with_1_and_names_what_and_a_way_out(gossamer, found, error):
    wrong = Outcome(target="fast", comparisons=(compared(3e-7), compared(error, rows=20)))
    found(wrong, Outcome(target="portable", comparisons=(compared(3e-7),)))
    outcome = gossamer("doctor")
    assert outcome.status == 1
    assert f"  int4  FAILED {error:.1e}" in outcome.out
    assert f"fast FAILED: int4, rows: 20: off by {error:.1e}, allowed are 1.0e-06" in outcome.out
    assert "portable FAILED" not in outcome.out
    assert "gossamer: The self-test failed: the kernels of fast are wrong here." in outcome.err
    assert "Set GOSSAMER_TARGET to portable, and report" in outcome.err


def test_a_kernel_that_crashes_fails_with_1_and_says_how(gossamer, found):
    found(
        *(
            Outcome(target=target, comparisons=(), failure="ended by SIGILL")
            for target in ("fast", "portable")
        )
    )
    outcome = gossamer("doctor")
    assert outcome.status == 1
    assert "fast FAILED: ended by SIGILL\n" in outcome.out
    assert "the kernels of fast, portable are wrong here" in outcome.err
    assert "Set GOSSAMER_TARGET to none, which leaves the slower reference path" in outcome.err


def test_json_of_a_failure_is_one_object_too(gossamer, found):
    found(Outcome(target="fast", comparisons=(compared(float("nan")),)))
    outcome = gossamer("doctor", "--json")
    assert outcome.status == 1
    [tested] = json.loads(outcome.out)["selftest"]
    assert (tested["target"], tested["passed"], tested["failure"]) == ("fast", False, None)
    assert tested["comparisons"] == [
        {"what": "int4", "shape": "rows: 1", "relative_error": "nan", "allowed": 1e-6}
        | {"passed": False}
    ]


@pytest.mark.usefixtures("_without_kernels")
def test_a_machine_without_kernels_is_told_why_and_is_well(gossamer):
    outcome = gossamer("doctor")
    assert outcome.status == 0
    assert "native kernels: none. The compiler is on holiday; call it back.\n" in outcome.out
    assert "slower reference path" in outcome.out
    got = gossamer("doctor", "--json").json()
    assert got["kernels"] == {
        "target": None,
        "targets": [],
        "why_unavailable": "The compiler is on holiday; call it back.",
        "required": False,
    }
    assert (got["read_gb_per_second"], got["selftest"]) == (None, [])


@pytest.mark.usefixtures("_without_kernels")
@pytest.mark.parametrize("json_flag", [[], ["--json"]])
def test_kernels_that_are_missing_but_required_fail_with_1(gossamer, monkeypatch, json_flag):
    monkeypatch.setenv("GOSSAMER_REQUIRE_KERNELS", "1")
    outcome = gossamer("doctor", *json_flag)
    assert outcome.status == 1
    assert "The compiler is on holiday; call it back." in outcome.out
    assert "GOSSAMER_REQUIRE_KERNELS is set, but there are no native kernels" in outcome.err


@needs_kernels
def test_a_target_of_another_machine_leaves_no_kernels_and_says_which_there_are(
    gossamer, monkeypatch
):
    monkeypatch.setenv("GOSSAMER_TARGET", "abacus")
    outcome = gossamer("doctor")
    assert outcome.status == 0
    assert "native kernels: none. GOSSAMER_TARGET is 'abacus', but this machine has" in outcome.out
    assert "Name one of these, or unset it." in outcome.out
