"""What a policy does to its users over an episode, and policies that keep a floor of what they give."""
