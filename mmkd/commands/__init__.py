"""What the tools do, a module for each: ``main(argv, prog)``."""
