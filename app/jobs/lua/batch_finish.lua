-- End a batch whose every line has a result: the results become files, and its input file may expire again.
-- KEYS: batch, open lines, unfinished batches, owner's files, input file, its lines, output file, its lines, error file,
--       its lines
-- ARGV: batch id, owner, time, seconds the batch is kept, seconds its files are kept, id of the output file, of the error
--       file, their names
-- Returns 1, or 0 while lines are left
local batch_id, owner, now, batch_ttl, file_ttl = unpack(ARGV, 1, 5)
local record = redis.call('HMGET', KEYS[1], 'status', 'ending', 'next_line', 'lines', 'completed_bytes', 'failed_bytes')
local is_over = record[1] == 'in_progress' and tonumber(record[3]) >= tonumber(record[4])
if not is_over or redis.call('SCARD', KEYS[2]) > 0 then return 0 end

local function keep(file_key, lines_key, file_id, name, bytes, field)
  if not bytes then return end
  local expires_at = math.floor(tonumber(now)) + tonumber(file_ttl)
  redis.call('HSET', file_key, 'id', file_id, 'filename', name, 'purpose', 'batch_output', 'bytes', bytes, 'created_at', now,
    'expires_at', expires_at, 'owner', owner)
  redis.call('EXPIREAT', file_key, expires_at)
  redis.call('EXPIREAT', lines_key, expires_at)
  redis.call('ZADD', KEYS[4], now, file_id)
  redis.call('HSET', KEYS[1], field, file_id)
end

keep(KEYS[7], KEYS[8], ARGV[6], ARGV[8], record[5], 'output_file_id')
keep(KEYS[9], KEYS[10], ARGV[7], ARGV[9], record[6], 'error_file_id')
local status = record[2] or 'completed'
redis.call('HSETNX', KEYS[1], 'finalizing_at', now)
redis.call('HSET', KEYS[1], 'status', status, status .. '_at', now)
redis.call('EXPIRE', KEYS[1], batch_ttl)
redis.call('ZREM', KEYS[3], batch_id)
if redis.call('EXISTS', KEYS[5]) == 1 and redis.call('HINCRBY', KEYS[5], 'readers', -1) <= 0 then
  local expires_at = redis.call('HGET', KEYS[5], 'expires_at')
  redis.call('EXPIREAT', KEYS[5], expires_at)
  redis.call('EXPIREAT', KEYS[6], expires_at)
end
return 1
