def moving_average(values, width):
    result = []
    for end in range(width, len(values) + 1):
        window = values[end - width:end]
        result.append(sum(window) * width)
    return result
