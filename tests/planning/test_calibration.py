import dataclasses

import pytest

from gossamer.planning import (
    CALIBRATED,
    IDEAL,
    IDEAL_FLAT,
    StepConstants,
    agreement,
    builtin_measurements,
    find_chip,
    fit_constants,
    leave_one_table_out,
    predicted_seconds,
    read_measurements,
)

TPU = find_chip("tpu-v4")
FITTED = builtin_measurements(fitted=True)
OTHERS = builtin_measurements(fitted=False)
CONSTANTS = (
    "fixed_seconds",
    "hop_seconds",
    "matmul_efficiency",
    "link_efficiency",
    "score_traffic",
)


def rows(tables):
    return [each for table in tables.values() for each in table]


def test_in_sample_the_planner_is_off_by_less_than_8_percent():
    assert len(rows(FITTED)) == 71
    found = agreement(rows(FITTED), TPU)
    assert found.geometric_error < 0.08
    assert found.worst_ratio < 1.5
    assert abs(found.bias) < 0.01


def test_each_table_is_predicted_from_the_others():
    found = leave_one_table_out(FITTED, TPU)
    assert list(found) == list(FITTED)
    assert max(each.geometric_error for each in found.values()) < 0.12
    assert max(each.worst_ratio for each in found.values()) < 1.5


@pytest.mark.parametrize("table", OTHERS)
def test_tables_outside_the_fit_are_predicted(table):
    # MT-NLG has another block and another kind of attention; figure B.1's passes are shorter, and
    # figure 6's slices larger, than any in the fit.
    found = agreement(OTHERS[table], TPU)
    assert found.geometric_error < 0.15
    assert found.worst_ratio < 1.5


def test_steps_at_long_contexts_are_within_25_percent_of_figure_8():
    assert agreement(OTHERS["figure-8"], TPU).worst_ratio < 1.25


def test_constants_of_appendix_d_alone_hold_for_figure_1():
    appendix = {name: FITTED[name] for name in ("table-d.2", "table-d.3")}
    constants = fit_constants(appendix, TPU)
    assert agreement(rows(appendix), TPU, constants).geometric_error < 0.08
    assert agreement(FITTED["figure-1-decode"], TPU, constants).geometric_error < 0.20
    assert agreement(FITTED["figure-1-prefill"], TPU, constants).geometric_error < 0.30


def test_the_shipped_constants_are_what_the_fit_gives():
    found = fit_constants(FITTED, TPU)
    for name in CONSTANTS:
        # They are shipped with three digits.
        assert getattr(CALIBRATED, name) == pytest.approx(getattr(found, name), rel=5e-3)


def test_a_fit_finds_the_constants_that_made_the_seconds():
    truth = StepConstants(
        fixed_seconds=80e-6,
        hop_seconds=1.5e-6,
        matmul_efficiency=0.6,
        link_efficiency=0.7,
        score_traffic=12.0,
        network="axis-by-axis",
        gather_links=1.0,
    )
    made = {
        name: [
            dataclasses.replace(each, seconds=seconds)
            for each, seconds in zip(
                table, predicted_seconds(table, TPU, truth).tolist(), strict=True
            )
        ]
        for name, table in FITTED.items()
    }
    found = fit_constants(made, TPU)
    for name in CONSTANTS:
        assert getattr(found, name) == pytest.approx(getattr(truth, name), rel=1e-4)


@pytest.mark.parametrize("constants", [IDEAL, IDEAL_FLAT], ids=["per axis", "flat"])
def test_nothing_that_was_measured_is_faster_than_ideal(constants):
    ratios = agreement(rows(FITTED) + rows(OTHERS), TPU, constants).ratios
    assert len(ratios) == 131
    assert max(ratios) < 1


def test_measurements_together_are_predicted_as_each_alone():
    together = predicted_seconds(rows(FITTED), TPU, CALIBRATED)
    alone = [predicted_seconds([each], TPU, CALIBRATED)[0] for each in rows(FITTED)]
    assert together.tolist() == pytest.approx(alone, rel=1e-12)


def test_agreement_is_by_logarithms():
    made = FITTED["table-d.2"][0]
    (seconds,) = predicted_seconds([made], TPU, CALIBRATED).tolist()
    found = agreement(
        [dataclasses.replace(made, seconds=seconds * factor) for factor in (0.5, 2.0)], TPU
    )
    assert found.ratios == pytest.approx([2, 0.5])
    assert found.geometric_error == pytest.approx(1)
    assert found.worst_ratio == pytest.approx(2)
    assert found.bias == pytest.approx(0)
    assert str(found) == "100.0% off, bias +0.0%, worst 2.00x"


def test_too_few_measurements_are_refused():
    with pytest.raises(ValueError, match="as many measurements or more, got 4"):
        fit_constants({"table-2": OTHERS["table-2"]}, TPU)
    with pytest.raises(ValueError, match="no measurements to compare"):
        agreement([], TPU)


def test_a_users_measurements_are_read_and_share_what_a_table_says(tmp_path):
    file = tmp_path / "measured.yaml"
    file.write_text(
        """
mine:
  source: a stopwatch
  shared: {model: palm-8b, weights: int8, chips: 8, layout: ws-2d, attention: heads}
  rows:
    - {batch: 1, prompt: 64, seconds: 1}
    - {batch: 4, context: 64, steps: 2, seconds: 0.5, attention: batch}
"""
    )
    first, second = read_measurements(file)["mine"]
    assert (first.seconds, first.attention, second.attention) == (1.0, "heads", "batch")
    assert second.table == "mine"
    once = dataclasses.replace(second, steps=1)
    step, both = predicted_seconds([once, second], TPU, CALIBRATED)
    assert both == pytest.approx(2 * step)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3", "need a mapping from names to tables"),
        ("mine: {row: []}", "mine needs a mapping with a list of rows"),
        (
            "mine: {rows: [{chips: 8}], colour: red}",
            r"unknown fields \['colour'\]; mine, row 0 lacks",
        ),
    ],
)
def test_bad_files_are_refused(text, message, tmp_path):
    file = tmp_path / "measured.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_measurements(file)
    with pytest.raises(ValueError, match="cannot be read"):
        read_measurements(tmp_path / "none.yaml")


def test_impossible_measurements_are_refused():
    made = FITTED["table-d.2"][0]
    with pytest.raises(ValueError, match="positive chips, batch and seconds"):
        dataclasses.replace(made, seconds=0.0)
    with pytest.raises(ValueError, match="needs a prompt, or steps and a context"):
        dataclasses.replace(made, prompt=0)
