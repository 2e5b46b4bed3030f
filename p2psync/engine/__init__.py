"""The work itself: one owner task per replica and per peer, exchange, fetch, apply, pairing."""
