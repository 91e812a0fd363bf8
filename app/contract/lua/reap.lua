-- Look after the jobs of one model that nobody looks after: leases that ran out, messages that got lost, jobs that have
-- waited too long, entries of jobs that are gone. Any process may call it at any time; one call a second does the work.
-- KEYS: turn, running, queued, expiring, ended, then the broker's lists in the order of the priority steps
-- ARGV: key prefix, kept_seconds, max_attempts, hints channel, milliseconds between turns, pause in milliseconds (0 = none:
--       Redis was away, so no worker could renew its lease; nobody reaps before they have had the time), most jobs per
--       turn, seconds until a missing message counts as lost, lease_seconds, message of `worker_lost`
-- Returns a flat list of {id, priority, "front" | "back"}: jobs whose message the caller pushes onto the broker's list
-- include: end_job
-- include: end_without_worker
local prefix, kept_seconds, max_attempts, channel = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local limit = ARGV[7]
if tonumber(ARGV[6]) > 0 then
  redis.call('SET', KEYS[1], 'pause', 'PX', ARGV[6])
  return {}
end
if not redis.call('SET', KEYS[1], 'turn', 'NX', 'PX', ARGV[5]) then return {} end
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local found = {}

local function messages(job_id, priority, place)
  for _, value in ipairs({job_id, priority, place}) do found[#found + 1] = value end
end

local function finish(job_id, status, reason, failure)
  end_without_worker(prefix .. 'job:' .. job_id, prefix .. 'events:' .. job_id, KEYS[5], job_id, kept_seconds, status, reason,
    failure)
  redis.call('PUBLISH', channel, job_id)
end

-- The worker of a job has died, or was away for so long that it counts as dead. What it ran on trial is to blame, where it
-- ran something on trial: the other jobs were held meanwhile.
local function take_from_worker(job_id, record)
  local job_key = prefix .. 'job:' .. job_id
  local on_trial = redis.call('GET', prefix .. 'trial:' .. (record[3] or ''))
  local losses = tonumber(record[5] or 0) + ((on_trial and on_trial ~= job_id) and 0 or 1)
  if record[4] == '1' then return finish(job_id, 'canceled', 'canceled') end
  if losses >= max_attempts then
    redis.call('HSET', job_key, 'losses', losses)
    return finish(job_id, 'failed', 'error', {'worker_lost', ARGV[10]})
  end
  local last_sign = tonumber(record[2]) - tonumber(ARGV[9])
  local ran = tonumber(record[7] or 0) + math.max(0, last_sign - tonumber(record[8]))
  local place = record[9]
  if losses > 1 then place = string.format('%.0f', math.floor(tonumber(place) / 3e15) * 3e15 + now * 1e6) end
  redis.call('HSET', job_key, 'status', 'queued', 'losses', losses, 'token', tonumber(record[6]) + 1, 'place', place,
    'ran', string.format('%.6f', ran))
  redis.call('HDEL', job_key, 'lease_until', 'claim', 'missed_at')
  redis.call('ZADD', KEYS[3], place, job_id)
  messages(job_id, record[10], losses > 1 and 'back' or 'front')
end

for _, job_id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, limit)) do
  local record = redis.call('HMGET', prefix .. 'job:' .. job_id, 'status', 'lease_until', 'worker', 'cancel', 'losses', 'token',
    'ran', 'claimed_at', 'place', 'priority')
  local lease_until = tonumber(record[2] or 0)
  if record[1] == 'processing' and lease_until > now then
    redis.call('ZADD', KEYS[2], lease_until, job_id)
  else
    redis.call('ZREM', KEYS[2], job_id)
    if record[1] == 'processing' then take_from_worker(job_id, record) end
  end
end

for _, job_id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', now, 'LIMIT', 0, limit)) do
  redis.call('ZREM', KEYS[4], job_id)
  local record = redis.call('HMGET', prefix .. 'job:' .. job_id, 'status', 'started_at')
  if record[1] == 'queued' and not record[2] then
    redis.call('ZREM', KEYS[3], job_id)
    finish(job_id, 'expired')
  end
end

for _, entry in ipairs(redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', now, 'LIMIT', 0, limit)) do
  local job_id, owner = string.match(entry, '^(%S+) (.*)$')
  redis.call('ZREM', prefix .. 'jobs:' .. owner, job_id)
  redis.call('ZREM', KEYS[5], entry)
end

-- Lists are served in order, so a job that is to come before the next message has none: it was taken from the list by a
-- consumer that died before its claim, or that will claim in a moment.
for step = 0, #KEYS - 6 do
  local list = KEYS[6 + step]
  local last = string.format('(%.0f', (step + 1) * 3e15)
  for _ = 1, limit do
    local message = redis.call('LINDEX', list, -1)
    if not message then break end
    local job_id = string.match(message, '"correlation_id": "([^"]+)"')
    local place = job_id and redis.call('ZSCORE', KEYS[3], job_id)
    if place or not job_id then -- a message that is not ours is not ours to judge by
      last = place and '(' .. place or '-inf'
      break
    end
    redis.call('RPOP', list) -- of a job that waits no more
  end
  for _, job_id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], string.format('%.0f', step * 3e15), last, 'LIMIT', 0, limit)) do
    local job_key = prefix .. 'job:' .. job_id
    local record = redis.call('HMGET', job_key, 'missed_at', 'priority')
    if not record[2] then
      redis.call('ZREM', KEYS[3], job_id) -- there is no such job
    elseif not record[1] then
      redis.call('HSET', job_key, 'missed_at', now)
    elseif now - tonumber(record[1]) >= tonumber(ARGV[8]) then
      redis.call('HDEL', job_key, 'missed_at')
      messages(job_id, record[2], 'front')
    end
  end
end
return found
