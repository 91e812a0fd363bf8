-- Reserve the bytes of a file whose lines are going to be written. It counts from now on, and cannot be read yet.
-- KEYS: file, owner's files, owner's batches
-- ARGV: prefix of the files' keys, of the batches' keys, file id, bytes, the most that the owner may store, created_at,
--       seconds until the reservation ends
-- Returns -1, or the bytes that the owner stores where these would be too many
-- include: stored_bytes
if redis.call('EXISTS', KEYS[1]) == 1 then return -1 end -- the same call once more, after its first reply was lost
local stored = stored_bytes(KEYS[2], KEYS[3], ARGV[1], ARGV[2])
if stored + tonumber(ARGV[4]) > tonumber(ARGV[5]) then return stored end
redis.call('HSET', KEYS[1], 'bytes', ARGV[4])
redis.call('EXPIRE', KEYS[1], ARGV[7])
redis.call('ZADD', KEYS[2], ARGV[6], ARGV[3])
return -1
