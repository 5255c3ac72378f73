from keys import lower_keys


def test_lower_keys():
    assert lower_keys({'A': 1}) == {'a': 1}
    assert lower_keys({}) == {}
