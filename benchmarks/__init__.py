"""Measures p2psync beside cp, rsync, Unison and Syncthing, between the same two hosts.

`scripts/bench` is the command. `bench.py` runs cases, `cases/` has them, `programs/` are what
is compared, `lan.py` is what they run on, `results.py` keeps what came out, `report.py` shows
it.
"""
