"""mmkd.distillation."""
