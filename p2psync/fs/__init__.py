"""The disk: scanning, staging, putting in place, history, watching. Plain synchronous code."""
