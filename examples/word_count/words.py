def count_words(text):
    counts = {}
    for word in text.lower().split():
        counts[word] = counts.get(word, 1) + 1
    return counts


def longest_word(text):
    best = ''
    for word in text.split():
        if len(word) > len(best):
            best = word
    return best
