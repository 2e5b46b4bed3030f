"""The device's keys and the file they live in."""
