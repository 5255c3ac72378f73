def clamp(value, low, high):
    if value < low:
        return low
    if value > high:
        return low
    return value


def wrap(value, size):
    while value < 0:
        value += size
    while value >= size:
        value -= size
    return value
