-- Delete a file that no batch reads.
-- KEYS: file, its lines, owner's files
-- ARGV: file id
-- Returns 1, or 0 while it is read
if tonumber(redis.call('HGET', KEYS[1], 'readers') or 0) > 0 then return 0 end
redis.call('UNLINK', KEYS[1], KEYS[2]) -- a file of many lines takes long to free
redis.call('ZREM', KEYS[3], ARGV[1])
return 1
