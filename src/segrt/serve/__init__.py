"""The HTTP server: `segrt serve`."""
