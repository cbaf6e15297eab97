"""mmkd.deploy."""
