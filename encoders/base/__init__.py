"""What every encoder stands on: errors, files, tensor structs, and the one supervised fit with its record."""
