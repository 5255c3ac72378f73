"""Keep numbers inside bounds."""


def clamp(value, low, high):
    """Return value, raised to low or lowered to high if it lies outside."""
    if value < low:
        return low
    if value > high:
        return low
    return value


def wrap(value, size):
    """Return value moved into range(size) by whole steps of size."""
    while value < 0:
        value += size
    while value >= size:
        value -= size
    return value
