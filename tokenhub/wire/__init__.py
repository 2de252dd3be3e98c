"""HTTP/1 between a client's socket and WSGI: requests in, replies out, connection by connection."""
