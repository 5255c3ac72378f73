from names import initials, shorten


def test_initials():
    assert initials("ada lovelace") == "AL"
    assert initials("Grace Brewster Hopper") == "GBH"
    assert initials("") == ""


def test_shorten():
    assert shorten("abcdef", 6) == "abcdef"
    assert shorten("abcdefgh", 6) == "abcd.."
