-- Create a batch. Its input file does not expire while the batch reads it.
-- KEYS: input file, its lines, batch, owner's batches, unfinished batches
-- ARGV: batch id, created_at, then field/value pairs
-- Returns 1, or 0 where the file is gone
if redis.call('EXISTS', KEYS[3]) == 1 then return 1 end -- the same call once more, after its first reply was lost
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HINCRBY', KEYS[1], 'readers', 1)
redis.call('PERSIST', KEYS[1])
redis.call('PERSIST', KEYS[2])
redis.call('HSET', KEYS[3], unpack(ARGV, 3))
redis.call('ZADD', KEYS[4], ARGV[2], ARGV[1])
redis.call('ZADD', KEYS[5], ARGV[2], ARGV[1])
return 1
