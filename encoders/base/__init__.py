"""What every encoder stands on: errors, files, tensor structs, and the record of a fit."""
