"""What the command lines do, one module for each command."""
