"""Looking ahead: copies of lanes, and steps without the noise of a draw."""
