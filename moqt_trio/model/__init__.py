"""What is published, apart from any session: broadcasts hold tracks, tracks hold groups, groups hold frames.

The application writes once; every subscription on every session reads through a cursor of its own, at its own pace.
Nothing here knows of streams, of bytes on a wire or of peers.
"""
