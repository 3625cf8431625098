"""Units of systemd for a config: made, printed, installed."""
