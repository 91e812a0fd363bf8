-- Write what a sequence has produced; refused when another worker has claimed the job since (fencing).
-- KEYS: job, events, running, ended, service time
-- ARGV: id, fencing token, delta JSON ('' = none), token ids JSON, tokens published before, and after, this delta,
--       end JSON ('' = not the end), then for the end: kept_seconds, hints channel, names of the record's fields
--       (comma-separated), and the end's field/value pairs
-- Returns 1 | 0 when fenced | -1 when tokens published before this delta are missing: nothing is written, they come first.
-- Sent once more, after its answer was lost, a call is answered again, and what is there is not written again.
-- include: end_job
local HINT_BYTES = 16384 -- every API process hears every hint; a larger record is read only by who waits for it
local NEWEST_SHARE = 0.1 -- of the mean service time: about the last twenty jobs count

-- Tell that the job is final: the record itself as a JSON list, or its id where the record is large.
local function hint(job_key, job_id, channel, fields)
  local names = {}
  for name in string.gmatch(fields, '[^,]+') do names[#names + 1] = name end
  local values = redis.call('HMGET', job_key, unpack(names))
  local bytes = 0
  for _, value in ipairs(values) do bytes = bytes + (value and #value or 0) end
  redis.call('PUBLISH', channel, bytes > HINT_BYTES and job_id or cjson.encode(values))
end

local function count_service_time(service_key, claimed_at)
  local time = redis.call('TIME')
  local seconds = tonumber(time[1]) + tonumber(time[2]) / 1e6 - tonumber(claimed_at)
  local mean = tonumber(redis.call('GET', service_key) or seconds)
  redis.call('SET', service_key, string.format('%.6f', mean + NEWEST_SHARE * (seconds - mean)))
end

local record = redis.call('HMGET', KEYS[1], 'token', 'status', 'published', 'claimed_at')
if record[1] ~= ARGV[2] or record[2] == 'queued' then return 0 end
if record[2] ~= 'processing' then return 1 end -- ended under this very token
local published, before = tonumber(record[3] or 0), tonumber(ARGV[5])
if published < before then return -1 end
if ARGV[3] ~= '' and published == before then
  redis.call('XADD', KEYS[2], '*', 'type', 'delta', 'data', ARGV[3], 'tokens', ARGV[4])
  if ARGV[7] == '' then redis.call('HSET', KEYS[1], 'published', ARGV[6]) end
end
if ARGV[7] ~= '' then
  redis.call('ZREM', KEYS[3], ARGV[1])
  end_job(KEYS[1], KEYS[2], KEYS[4], ARGV[1], ARGV[8], ARGV[7], {unpack(ARGV, 11)})
  count_service_time(KEYS[5], record[4])
  hint(KEYS[1], ARGV[1], ARGV[9], ARGV[10])
end
return 1
