"""The commands of `recloop`, one file each."""
