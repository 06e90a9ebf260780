"""Documentation that Ansible's modules carry: options, examples and return values, in YAML within Python files."""
