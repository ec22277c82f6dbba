import io
import os

import pytest
import rich.console

from gossamer.cli.console import Console, WrongUseError, arguments, check_free, native_output_aside


def test_progress_without_a_terminal_is_one_line_a_stage(capsys):
    console = Console()
    advance = console.stage("blocks", 3)
    for _ in range(3):
        advance()
    console.close()
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err == "blocks: 3/3, 0 s\n"


def test_progress_on_a_terminal_is_a_bar_that_ends_above_what_follows(capsys):
    console = Console()
    console.err = rich.console.Console(file=io.StringIO(), force_terminal=True, width=80)
    advance = console.stage("blocks", 2)
    advance()
    advance()
    console.close()
    shown = console.err.file.getvalue()
    assert "blocks" in shown
    assert "100%" in shown
    assert capsys.readouterr() == ("", "")


def test_brackets_are_no_markup(capsys):
    console = Console()
    console.out.print("[bold]model[/]")
    console.note("/tmp/[1]")
    assert capsys.readouterr() == ("[bold]model[/]\n", "/tmp/[1]\n")


def test_faults_of_arguments_are_wrong_use_and_other_errors_pass():
    with pytest.raises(WrongUseError, match="no such recipe"), arguments():
        raise ValueError("no such recipe")
    with pytest.raises(OSError, match="disk"), arguments():
        raise OSError("disk")


def test_an_output_that_exists_is_refused_unless_it_may_be_replaced(tmp_path):
    check_free(tmp_path / "new", overwrite=False)
    check_free(tmp_path, overwrite=True)
    with pytest.raises(WrongUseError, match=r"exists; choose another, or add --overwrite"):
        check_free(tmp_path, overwrite=False)


def test_what_native_code_prints_does_not_mix_with_results(capfd):
    with native_output_aside():
        os.write(1, b"[Gloo] Rank 0 is connected\n")
    print("{}")
    assert capfd.readouterr() == ("{}\n", "[Gloo] Rank 0 is connected\n")
