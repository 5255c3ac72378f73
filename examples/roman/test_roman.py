from roman import from_roman


def test_one_letter():
    assert from_roman("I") == 1
    assert from_roman("C") == 100


def test_several_letters():
    assert from_roman("XIV") == 14
    assert from_roman("MMXX") == 2020
