-- Revoke an API key: its secrets open nothing from now on, its name is free. The record stays, unless it is forgotten.
-- KEYS: record, ids of keys, ids by name
-- ARGV: id, prefix of digests, '1' to forget it
-- Returns 1, 0 where there is no such key
local record = redis.call('HMGET', KEYS[1], 'name', 'digest', 'last_digest', 'revoked_at')
local name, digest, last_digest, revoked_at = unpack(record)
if not name then return 0 end
if not revoked_at then
  redis.call('DEL', ARGV[2] .. digest)
  if last_digest then redis.call('DEL', ARGV[2] .. last_digest) end
  redis.call('HDEL', KEYS[3], name)
  redis.call('HSET', KEYS[1], 'revoked_at', redis.call('TIME')[1])
end
if ARGV[3] == '1' then
  redis.call('DEL', KEYS[1])
  redis.call('ZREM', KEYS[2], ARGV[1])
end
return 1
