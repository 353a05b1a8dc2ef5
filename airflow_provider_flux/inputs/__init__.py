"""Input pictures: what a pipeline has already is read, checked, and sent in a form that the gateway takes."""
