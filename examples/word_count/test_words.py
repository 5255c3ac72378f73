from words import count_words


def test_count_words():
    assert count_words("one") == {"one": 1}
    assert count_words("tea or Tea") == {"tea": 2, "or": 1}
    assert count_words("") == {}
