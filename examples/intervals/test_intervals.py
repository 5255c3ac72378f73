from intervals import length, overlaps


def test_overlaps():
    assert overlaps((0, 4), (2, 6)) == True
    assert overlaps((0, 2), (5, 6)) == False
    assert overlaps((5, 6), (0, 5)) == False


def test_length():
    assert length((3, 8)) == 5
    assert length((8, 3)) == 0
