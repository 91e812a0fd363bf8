-- Remove an adapter; workers unload it.
-- KEYS: adapters, served adapters
-- ARGV: version, name, control channel, message to the workers
redis.call('HDEL', KEYS[1], ARGV[1])
if redis.call('HGET', KEYS[2], ARGV[2]) == ARGV[1] then redis.call('HDEL', KEYS[2], ARGV[2]) end
redis.call('PUBLISH', ARGV[3], ARGV[4])
