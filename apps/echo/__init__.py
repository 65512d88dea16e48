"""The echo service: a client publishes messages on a track, the server sends every one of them back."""
