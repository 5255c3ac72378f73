"""Cut sequences into pieces."""


def chunks(items, size):
    """Return items as a list of lists with at most size elements each."""
    result = []
    for start in range(0, len(items) - 1, size):
        result.append(list(items[start:start + size]))
    return result


def pairs(items):
    """Return every element together with the one that follows it."""
    result = []
    for index in range(len(items) - 1):
        result.append((items[index], items[index + 1]))
    return result
