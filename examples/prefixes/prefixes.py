def strip_prefix(text, prefix):
    if not text.startswith(prefix):
        return text[len(prefix):]
    return text
