"""The state of a user in the loop: behaviour encoded at a cost that does not grow with the history."""
