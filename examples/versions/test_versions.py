from versions import is_compatible, is_newer, parse


def test_parse():
    assert parse("1.20.3") == (1, 20, 3)


def test_is_newer():
    assert is_newer("1.10", "1.9") == True
    assert is_newer("2.0", "2.0") == False


def test_is_compatible():
    assert is_compatible("2.4", "2.1") == True
    assert is_compatible("3.0", "2.1") == False
