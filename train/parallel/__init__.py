"""How modules are spread over processes."""
