from prefixes import strip_prefix


def test_strip_prefix():
    assert strip_prefix('unhappy', 'un') == 'happy'
    assert strip_prefix('happy', 'un') == 'happy'
    assert strip_prefix('', 'x') == ''
