import dataclasses
import typing

import pytest

from gossamer.cli.compress import Compress
from gossamer.compression import GPTQ, METHODS, Method, MethodName, make_method

CLI = {field.name: field for field in dataclasses.fields(Compress)}


def test_every_method_is_known_by_its_name_to_types_and_to_the_command_line():
    assert list(METHODS) == list(typing.get_args(MethodName))
    hints = typing.get_type_hints(Compress)["method"]
    literal = next(arg for arg in typing.get_args(hints) if typing.get_args(arg))
    assert typing.get_args(literal) == typing.get_args(MethodName)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_a_value_with_its_settings(name):
    method = make_method(name, {})
    assert isinstance(method, Method)
    assert method == METHODS[name]()
    assert hash(method) == hash(METHODS[name]())
    assert make_method(name, method.settings) == method
    assert set(method.settings) <= set(CLI)  # each can be given on the command line


def test_settings_are_passed_on():
    assert make_method("gptq", {"act_order": False, "damping": 0.1}) == GPTQ(
        act_order=False, damping=0.1
    )


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("newton", {}, r"'newton' is none of \['rtn', 'magnitude', .*'smoothquant'\]"),
        (
            "wanda",
            {"act_order": True},
            r"'wanda' has no 'act_order'; those that have it: \['gptq', 'wanda-gptq'\]",
        ),
        ("rtn", {"speed": 3}, r"'rtn' has no 'speed'; those that have it: \[\]"),
        ("obr", {"alpha": 2.0}, "0 < alpha < 1, got 2.0"),
    ],
)
def test_unknown_names_and_settings_are_refused(name, settings, message):
    with pytest.raises(ValueError, match=message):
        make_method(name, settings)
