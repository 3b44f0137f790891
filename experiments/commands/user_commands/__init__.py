"""The commands about simulated users."""
