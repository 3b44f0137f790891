"""Off-policy evaluation: what a policy would have earned, from a log that another one wrote, or a refusal to say."""
