if a < b and c:
    pass
