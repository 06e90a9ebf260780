"""OpenAPI 3 and Swagger 2 descriptions as records of API documentation.

`documents` loads a file within bounds, `references` follows what it refers to inside itself, `schemas` turns its
schemas into plain JSON Schema, `bodies` and `parameters` gather what an operation takes, `examples` what is stated
about its use, and `operations` makes the records. `swagger2` says version 2 in the words of version 3.
"""
