"""Count words in a text."""


def count_words(text):
    """Return how often each word occurs, in lower case."""
    counts = {}
    for word in text.lower().split():
        counts[word] = counts.get(word, 1) + 1
    return counts


def longest_word(text):
    """Return the longest word, the first one if several are as long."""
    best = ""
    for word in text.split():
        if len(word) > len(best):
            best = word
    return best
