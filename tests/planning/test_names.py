import pytest

from gossamer.planning.names import check_known


def test_an_unknown_name_is_refused_with_those_that_are_known():
    check_known("layout", "ws-1d", ("ws-1d", "ws-2d"))
    with pytest.raises(ValueError, match="There is no layout 'ws-3d'; known are ws-1d, ws-2d"):
        check_known("layout", "ws-3d", ("ws-1d", "ws-2d"))
