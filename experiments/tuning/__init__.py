"""Settings of a policy that earn more in front of the validation users, searched and stopped early."""
