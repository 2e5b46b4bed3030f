"""Moving bytes: channels over memory, TLS and WebRTC, and meeting on the LAN."""
