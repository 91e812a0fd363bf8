"""Small faulty engines, run through the real worker and named by their fault."""
