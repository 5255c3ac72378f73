"""The operations of the hybrid model, one folder each.

Every folder holds ``reference.py`` (plain torch, the definition) and, where a fast twin exists,
``triton.py`` with the same signature. This module stays free of imports: ``kernels`` is also the
name of another distribution that some libraries probe for, and the version below keeps that probe
from failing (see ``docs/decisions/0001-package-names.md``).
"""

__version__ = "0.0.0"
