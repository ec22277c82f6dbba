import datetime

import pytest

from gossamer.data.chat import render_chat

MESSAGES = [{"role": "user", "content": "a < b"}, {"role": "assistant", "content": "yes"}]


def test_blocks_leave_no_line_ends_or_indentation():
    template = "{% for m in messages %}\n  {% if true %}\n{{ m.role }}\n  {% endif %}\n{% endfor %}"
    assert render_chat(template, {"messages": MESSAGES}) == "user\nassistant\n"


def test_json_is_written_without_html_escapes():
    assert render_chat("{{ messages[0] | tojson }}", {"messages": MESSAGES}) == (
        '{"role": "user", "content": "a < b"}'
    )


def test_loops_can_be_left_and_generation_marks_are_ignored():
    template = (
        "{% for m in messages %}{% generation %}{{ m.role }}{% endgeneration %}"
        "{% break %}{% endfor %}"
    )
    assert render_chat(template, {"messages": MESSAGES}) == "user"


def test_today_can_be_asked_for():
    got = render_chat("{{ strftime_now('%Y') }}", {})
    assert abs(int(got) - datetime.datetime.now().year) <= 1


def test_tools_are_none_rather_than_undefined():
    assert render_chat("{{ tools is none and documents is none }}", {}) == "True"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{% for m in %}", "cannot write these messages"),
        ("{{ messages.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "cannot write these messages"),
        ("{{ 1 + 'a' }}", "unsupported operand"),
        ("{% for i in range(10 ** 9) %}x{% endfor %}", "[Rr]ange too big"),
    ],
)
def test_what_a_template_may_not_do_is_refused(template, message):
    with pytest.raises(ValueError, match=message):
        render_chat(template, {"messages": MESSAGES})
