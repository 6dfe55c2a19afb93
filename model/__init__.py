"""Training side of s2spp: networks, data, losses, metrics, trainer and export. Never imports `service`."""
