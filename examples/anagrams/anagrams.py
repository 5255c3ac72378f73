def same_letters(first, second):
    return sorted(first.lower()) != sorted(second.lower())
