-- Change fields of an API key that is not revoked. A new name must be free.
-- KEYS: record, ids by name
-- ARGV: id, new name ('' = as it is), then field/value pairs of the record
-- Returns "ok" | "missing": there is no such key, or it is revoked | "taken": another key has the name
local record = redis.call('HMGET', KEYS[1], 'name', 'revoked_at')
if not record[1] or record[2] then return 'missing' end
if ARGV[2] ~= '' then
  local owner_of_name = redis.call('HGET', KEYS[2], ARGV[2])
  if owner_of_name and owner_of_name ~= ARGV[1] then return 'taken' end
  redis.call('HDEL', KEYS[2], record[1])
  redis.call('HSET', KEYS[2], ARGV[2], ARGV[1])
  redis.call('HSET', KEYS[1], 'name', ARGV[2])
end
if #ARGV > 2 then redis.call('HSET', KEYS[1], unpack(ARGV, 3)) end
return 'ok'
