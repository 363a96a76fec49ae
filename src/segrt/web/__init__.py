"""A static web page that runs a model in the browser: `segrt web`."""
