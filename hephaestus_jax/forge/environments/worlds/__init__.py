"""The environments, a folder each; what two of them share lies beside them."""
