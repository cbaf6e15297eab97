"""A folder of the user's own photographs: what it holds, what is wrong with it, a config for it."""
