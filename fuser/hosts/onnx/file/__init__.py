"""Files and objects: bytes in, bytes out, word for word where nothing changed."""
