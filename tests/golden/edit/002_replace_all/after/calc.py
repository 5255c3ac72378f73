def add(a, b):
    return a - b


def total(values):
    sum_ = 0
    for value in values:
        sum_ += value
    return sum_
