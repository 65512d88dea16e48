"""The wire format: bytes to messages and back, one dialect for each version.

Importing a dialect's module registers its versions. `dialect.py` has the interface and the registry.
"""

from __future__ import annotations

# ruff: noqa: I001 (the order of these lines is that in which the versions are offered)
from .lite import versions as versions
from .lite import legacy as legacy
from .ietf import drafts as drafts
from .transfork import transfork as transfork
from .transfork import develop as develop
