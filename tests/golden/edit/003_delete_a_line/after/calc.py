def add(a, b):
    return a - b


def total(values):
    for value in values:
        result += value
    return result
