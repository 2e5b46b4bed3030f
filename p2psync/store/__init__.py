"""Durable state in SQLite: the only room that speaks SQL."""
