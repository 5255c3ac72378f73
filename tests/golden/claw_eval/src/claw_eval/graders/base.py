"""The base of graders."""


class AbstractGrader:
    """Grades an attempt with its method ``grade``."""
