-- Let requests choose an adapter that the workers have loaded. It takes the place of another version of its name.
-- KEYS: adapters, served adapters
-- ARGV: version, name, '1' to replace a served one, control channel, message to the workers
-- Returns 'served', 'loaded' (another one of this name is served) or 'gone'
local before = redis.call('HGET', KEYS[2], ARGV[2])
if before == ARGV[1] then return 'served' end -- the same call once more
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return 'gone' end
if before and ARGV[3] ~= '1' then return 'loaded' end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[1])
if before then
  redis.call('HDEL', KEYS[1], before)
  redis.call('PUBLISH', ARGV[4], ARGV[5])
end
return 'served'
