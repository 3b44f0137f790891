"""From a log to a world: encoders, users, gates, and the card that says what to believe."""
