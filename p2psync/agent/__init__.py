"""The agent: composition root, control API, lock, logging."""
