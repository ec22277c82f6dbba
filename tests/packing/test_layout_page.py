"""The page that draws the layout tells the truth."""

import doctest
import pathlib

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "packed-layout.md"


def test_the_worked_example_gives_the_bytes_of_the_page():
    result = doctest.testfile(str(PAGE), module_relative=False)
    assert result.attempted >= 6
    assert result.failed == 0
