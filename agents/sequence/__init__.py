"""Next-item models over what a user consumed: one family of backbones, losses and item representations."""
