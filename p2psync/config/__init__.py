"""Settings and the places where the agent keeps its things."""
