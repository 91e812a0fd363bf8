-- An API process waits for this job from now on, and is notified of what becomes of it.
-- KEYS: job
-- ARGV: id, channel of the process, control channel ('' = it waits for the end only; else the job's worker writes deltas as
--       they come)
-- Returns 0 where there is no such job
local record = redis.call('HMGET', KEYS[1], 'id', 'listeners')
if not record[1] then return 0 end
local listeners = record[2] or ''
if not string.find(' ' .. listeners .. ' ', ' ' .. ARGV[2] .. ' ', 1, true) then
  redis.call('HSET', KEYS[1], 'listeners', listeners == '' and ARGV[2] or listeners .. ' ' .. ARGV[2])
end
if ARGV[3] ~= '' then
  redis.call('HSET', KEYS[1], 'followed', '1')
  redis.call('PUBLISH', ARGV[3], 'follow:' .. ARGV[1])
end
return 1
