from anagrams import same_letters


def test_same_letters():
    assert same_letters('Listen', 'silent') == True
    assert same_letters('ab', 'ac') == False
