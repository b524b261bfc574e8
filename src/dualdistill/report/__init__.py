"""Tables, curves and HTML pages of results."""
