"""mmkd.detection."""
