"""Small statistics over a series of numbers."""


def moving_average(values, width):
    """Return the mean of every window of width neighbouring values."""
    result = []
    for end in range(width, len(values) + 1):
        window = values[end - width:end]
        result.append(sum(window) * width)
    return result


def differences(values):
    """Return how much each value is above the one before it."""
    result = []
    for index in range(1, len(values)):
        result.append(values[index] - values[index - 1])
    return result
