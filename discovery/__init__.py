"""Meeting: announce, browse and mailboxes on the local network; knows nothing of p2psync."""
