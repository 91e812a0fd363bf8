-- Register an adapter: from now on workers load it. Requests may choose it after `serve_adapter`.
-- KEYS: adapters, served adapters
-- ARGV: version, name, source, '1' to replace a served one, the most adapters, seconds after which a load is abandoned,
--       control channel, message to the workers
-- Returns 'added', 'loaded' (one of this name is served) or 'full'
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then return 'added' end -- the same call once more
if ARGV[4] ~= '1' and redis.call('HEXISTS', KEYS[2], ARGV[2]) == 1 then return 'loaded' end
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local is_served, count = {}, 0
for _, version in ipairs(redis.call('HVALS', KEYS[2])) do is_served[version] = true end
local known = redis.call('HGETALL', KEYS[1])
for i = 1, #known, 2 do
  local is_abandoned = not is_served[known[i]] and cjson.decode(known[i + 1]).added_at + tonumber(ARGV[6]) < now
  if is_abandoned then redis.call('HDEL', KEYS[1], known[i]) else count = count + 1 end
end
if count >= tonumber(ARGV[5]) then return 'full' end
redis.call('HSET', KEYS[1], ARGV[1], cjson.encode({name = ARGV[2], source = ARGV[3], added_at = now}))
redis.call('PUBLISH', ARGV[7], ARGV[8])
return 'added'
