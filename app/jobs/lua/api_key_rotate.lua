-- Give an API key another secret. Its last one stays valid for a grace time, one before that does not.
-- KEYS: record, digest of the new secret
-- ARGV: id, digest of the new secret, prefix of digests, seconds of grace
-- Returns 1, 0 where there is no such key or it is revoked
local record = redis.call('HMGET', KEYS[1], 'digest', 'last_digest', 'revoked_at')
local digest, last_digest, revoked_at = unpack(record)
if not digest or revoked_at then return 0 end
if digest == ARGV[2] then return 1 end -- the same call once more, after its first reply was lost
if last_digest then redis.call('DEL', ARGV[3] .. last_digest) end
if tonumber(ARGV[4]) > 0 then
  redis.call('EXPIRE', ARGV[3] .. digest, ARGV[4])
else
  redis.call('DEL', ARGV[3] .. digest)
end
redis.call('SET', KEYS[2], ARGV[1])
redis.call('HSET', KEYS[1], 'digest', ARGV[2], 'last_digest', digest)
return 1
