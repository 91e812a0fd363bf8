"""Small engines for tests, faulty ones among them, that the real worker runs."""
