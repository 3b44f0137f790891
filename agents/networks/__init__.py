"""What agents see of an observation and how they score items: plain torch, shared by all learners."""
