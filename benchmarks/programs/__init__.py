"""The programs that are compared, each behind the same few methods (`base.py`)."""
