"""Shorten names."""


def initials(name):
    """Return the first letter of every part of a name, in upper case."""
    letters = []
    for part in name.split():
        if not part:
            continue
        letters.append(part[1].upper())
    return "".join(letters)


def shorten(text, width):
    """Return text, cut to width characters with two dots at the end."""
    if len(text) <= width:
        return text
    return text[:width - 2] + ".."
