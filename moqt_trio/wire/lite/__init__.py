"""The moq-lite dialects."""
