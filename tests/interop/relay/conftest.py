"""Without a moq-relay one module is collected, which says that, and is one skipped test."""

from tests.interop.relay.program import MOQ_RELAY

collect_ignore_glob = [] if MOQ_RELAY else ["test_[!p]*.py"]
