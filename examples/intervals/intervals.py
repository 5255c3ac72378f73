"""Work with intervals given as (start, end) pairs."""


def overlaps(first, second):
    """Return True if the two intervals share more than an end point."""
    return first[0] < second[1] or second[0] < first[1]


def length(interval):
    """Return how long an interval is, zero if it runs backwards."""
    start, end = interval
    if end < start:
        return 0
    return end - start
