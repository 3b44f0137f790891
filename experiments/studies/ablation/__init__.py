"""What each part of the encoder is worth."""
