from bounds import clamp, wrap


def test_clamp():
    assert clamp(5, 0, 10) == 5
    assert clamp(-3, 0, 10) == 0
    assert clamp(12, 0, 10) == 10


def test_wrap():
    assert wrap(-1, 7) == 6
    assert wrap(7, 7) == 0
