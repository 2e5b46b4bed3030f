"""The conversation between the command line and the agent over a Unix socket."""
