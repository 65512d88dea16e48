"""IETF moq-transport, drafts 14 to 22: one codec, and a profile for each draft."""
