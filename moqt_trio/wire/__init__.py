"""The wire floor: bytes to message values and back, for every version that this library speaks.

It owns the layout of messages, and every bound on what a peer's bytes can make the reader do. It has no clock and
does no I/O, and it knows nothing of sessions: which message may come where is the business of the floor above.

Importing it registers the versions, newest first; `dialect.get` and `dialect.resolve` find them.
"""

# ruff: noqa: I001 (the order of these lines is that in which the versions are offered)
from . import lite as lite
from . import lite_legacy as lite_legacy
from . import transfork as transfork
from . import develop as develop
from . import lite_draft as lite_draft
