"""Renders chat templates: Jinja programs that come with a model and are trusted with nothing."""

import datetime
import functools
import json
from collections.abc import Mapping
from typing import NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment


def render_chat(template: str, variables: Mapping[str, object]) -> str:
    """Renders a template with the functions and filters that `transformers` gives it.

    Args:
        template: a Jinja program.
        variables: what it may use: `messages`, `add_generation_prompt`, `bos_token`, ...

    Raises:
        ValueError: the template is no program, refuses the messages, or does what the sandbox
            forbids.

    Example:
        >>> render_chat("{{ messages[0].role }}: hello", {"messages": [{"role": "user"}]})
        'user: hello'

    Source: Hugging Face transformers, `utils/chat_template_utils.py`; tools and documents are None.
    """
    try:
        return _compile(template).render({"tools": None, "documents": None, **variables})
    except Exception as error:  # a program of others fails in any way it likes
        raise ValueError(f"The chat template cannot write these messages: {error}") from error


@functools.lru_cache(maxsize=8)
def _compile(template: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment.from_string(template)


class _Generation(jinja2.ext.Extension):
    """Lets `{% generation %}` pass, which marks the assistant's words for training."""

    tags = {"generation"}  # noqa: RUF012  jinja2's own declaration

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        """Keeps what is inside."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter writes for HTML, with < and > escaped.
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.datetime.now().strftime(form)
