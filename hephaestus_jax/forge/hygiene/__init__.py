"""What is kept of the records that were read, and what is scrubbed from them."""
