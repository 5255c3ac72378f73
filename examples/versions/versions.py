"""Compare dotted version numbers."""


def parse(text):
    """Return the numbers of a dotted version as a tuple."""
    numbers = []
    for part in text.split("."):
        numbers.append(int(part))
    return tuple(numbers)


def is_newer(version, other):
    """Return True if version is a later release than other."""
    return parse(version) < parse(other)


def is_compatible(version, wanted):
    """Return True if both have the same first number and version is not older."""
    if parse(version)[0] != parse(wanted)[0]:
        return False
    return parse(version) >= parse(wanted)
