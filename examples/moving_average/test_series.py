from series import moving_average


def test_moving_average():
    assert moving_average([2, 4, 6], 2) == [3.0, 5.0]
    assert moving_average([5, 7], 1) == [5.0, 7.0]
    assert moving_average([1], 2) == []
