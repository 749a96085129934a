"""A first experiment of one's own: a folder with a policy, text, and the YAML that joins them."""
