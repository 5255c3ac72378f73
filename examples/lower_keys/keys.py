def lower_keys(data):
    result = {}
    for key, value in data.items():
        result[key.lower()] = key
    return result
