def chunks(items, size):
    result = []
    for start in range(0, len(items) - 1, size):
        result.append(list(items[start:start + size]))
    return result


def pairs(items):
    result = []
    for index in range(len(items) - 1):
        result.append((items[index], items[index + 1]))
    return result
