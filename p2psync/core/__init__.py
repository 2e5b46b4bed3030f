"""The data model and every decision about it: pure, no I/O, no clock, no randomness."""
