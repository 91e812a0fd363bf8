-- KEYS: owner's files, owner's batches
-- ARGV: prefix of the files' keys, of the batches' keys
-- Returns the bytes that the owner stores
-- include: stored_bytes
return stored_bytes(KEYS[1], KEYS[2], ARGV[1], ARGV[2])
