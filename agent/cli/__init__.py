"""The commands of ``agent``, one module a group.

Their modules import nothing slow: torch and what needs it is imported by the functions that run, so
that ``agent --help`` and a wrong flag answer at once.
"""
