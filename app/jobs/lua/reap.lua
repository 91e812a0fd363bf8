-- Clean up the jobs of one model: expired leases, jobs whose time to start has come, jobs that wait for long or
-- too long, missing doorbells, stale index entries. Any process may call it at any time; one call a second does the work.
-- KEYS: reaper, running, expiring, ended, doorbells, scheduled
-- ARGV: order, kept (as of end_job), max_attempts, seconds between turns, seconds without a turn
--       that mean an outage, seconds until the next turn then, most jobs of each kind per turn, most events
--       read per turn, lease_seconds, message of `worker_lost`, doorbell
-- Returns how many jobs are back in the order
-- include: end_job
-- include: end_without_worker
-- include: notify
-- include: order
-- include: scheduled
local RISES = 3 -- times the limit: ten microseconds each
local reaper_key, running_key, expiring_key, ended_key, doorbells_key, scheduled_key = unpack(KEYS)
local order, kept, max_attempts = order_of(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local turn_seconds, outage_seconds, grace_seconds = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local job_limit, event_limit = tonumber(ARGV[7]), tonumber(ARGV[8])
local lease_seconds, worker_lost, doorbell = tonumber(ARGV[9]), ARGV[10], ARGV[11]
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local requeued = 0
local events_read = 0

local function job_key(job_id) return order.prefix .. 'job:' .. job_id end

local function due(index_key, limit) return redis.call('ZRANGEBYSCORE', index_key, '-inf', now, 'LIMIT', 0, limit) end

-- After a long time without a turn, Redis was away or the machine slept: no worker could renew its lease, and this very
-- call may have waited in Redis' socket. The workers get time to renew first, unless all leases last for longer
-- than that. Where no job runs nothing is written, so that an idle Redis writes nothing to its file.
local function is_my_turn()
  local first = redis.call('ZRANGE', running_key, 0, 0, 'WITHSCORES')
  if not first[1] then
    redis.call('SET', reaper_key, string.format('%.6f', now), 'NX')
    return true
  end
  local next_turn = tonumber(redis.call('GET', reaper_key) or now)
  local was_outage = now - next_turn > outage_seconds and tonumber(first[2]) < now + grace_seconds
  local is_taken = now < next_turn and next_turn <= now + grace_seconds -- later than that: the clock was set back
  if is_taken then return false end
  redis.call('SET', reaper_key, string.format('%.6f', now + (was_outage and grace_seconds or turn_seconds)))
  return not was_outage
end

local function finish(job_id, status, reason, failure)
  local events_key = order.prefix .. 'events:' .. job_id
  events_read = events_read + redis.call('XLEN', events_key)
  end_without_worker(order, job_key(job_id), events_key, ended_key, job_id, kept, status, reason, failure)
  notify(redis.call('HGET', job_key(job_id), 'listeners'), job_id)
end

-- The worker of a job has died, or was away for so long that it counts as dead. If it ran a job in quarantine, only that
-- job is to blame: the others did not run meanwhile.
local function take_from_worker(job_id, record)
  redis.call('ZREM', running_key, job_id)
  local on_trial = redis.call('GET', order.prefix .. 'trial:' .. (record[3] or ''))
  local is_to_blame = not on_trial or on_trial == job_id
  local losses = tonumber(record[5] or 0) + (is_to_blame and 1 or 0)
  local ran = ran_until_lost(record[7], record[8], record[2], lease_seconds)
  redis.call('HSET', job_key(job_id), 'losses', losses, 'ran', ran)
  redis.call('HDEL', job_key(job_id), 'lease_until', 'claim')
  if record[4] == '1' then return finish(job_id, 'canceled', 'canceled') end
  if losses >= max_attempts then return finish(job_id, 'failed', 'error', {'worker_lost', worker_lost}) end
  local place = record[9]
  if is_to_blame and losses > 1 then -- the jobs of one turn stay in their order
    place = last_place(place, math.floor(now * 1e6) + requeued)
  end
  redis.call('HSET', job_key(job_id), 'status', 'queued', 'token', tonumber(record[6]) + 1, 'place', place)
  enter_order(order, record[10] or '', job_id, place, record[11])
  note_waiting(record[12], job_id)
  requeued = requeued + 1
end

local function end_leases()
  local lost = {}
  for _, job_id in ipairs(due(running_key, job_limit)) do
    local record = redis.call('HMGET', job_key(job_id), 'status', 'lease_until', 'worker', 'cancel', 'losses', 'token', 'ran',
      'claimed_at', 'place', 'tenant', 'priority', 'owner')
    local lease_until = tonumber(record[2] or 0)
    if record[1] ~= 'processing' then
      redis.call('ZREM', running_key, job_id)
    elseif lease_until > now then
      redis.call('ZADD', running_key, lease_until, job_id)
    else
      lost[#lost + 1] = {job_id, record, tonumber(record[9])}
    end
  end
  table.sort(lost, function(one, other) return one[3] < other[3] end)
  for _, job in ipairs(lost) do
    if events_read >= event_limit then break end -- the others are left to the next turn
    take_from_worker(job[1], job[2])
  end
end

local function start_scheduled()
  for _, job_id in ipairs(take_due(scheduled_key, now, job_limit)) do
    local record = redis.call('HMGET', job_key(job_id), 'status', 'place', 'tenant', 'priority')
    if record[1] == 'queued' then enter_order(order, record[3], job_id, record[2], record[4]) end
  end
end

-- The order of releases up to 0.1 was one sorted set. Redis may still have it after an upgrade.
local function take_over_old_order()
  local old_order = order.prefix .. 'queued:' .. order.model
  for _, job_id in ipairs(redis.call('ZRANGE', old_order, 0, job_limit - 1)) do
    local record = redis.call('HMGET', job_key(job_id), 'status', 'place', 'tenant', 'owner', 'priority')
    if record[1] == 'queued' then
      local tenant = record[3] or record[4]
      redis.call('HSET', job_key(job_id), 'tenant', tenant)
      enter_order(order, tenant, job_id, record[2], record[5])
    end
    redis.call('ZREM', old_order, job_id)
  end
end

local function end_waiting()
  for _, job_id in ipairs(due(expiring_key, job_limit)) do
    redis.call('ZREM', expiring_key, job_id)
    local record = redis.call('HMGET', job_key(job_id), 'status', 'started_at', 'tenant')
    if record[1] == 'queued' and not record[2] then
      leave_order(order, doorbells_key, record[3] or '', job_id)
      leave_schedule(scheduled_key, job_id) -- as many became due at once
      finish(job_id, 'expired')
    end
  end
end

local function prune_ended()
  local entries, ids_of = due(ended_key, 10 * job_limit), {} -- cheap, and as many as may end in a second
  for _, entry in ipairs(entries) do
    local job_id, owner = string.match(entry, '^(%S+) (.*)$')
    ids_of[owner] = ids_of[owner] or {}
    table.insert(ids_of[owner], job_id)
  end
  for owner, job_ids in pairs(ids_of) do redis.call('ZREM', order.prefix .. 'jobs:' .. owner, unpack(job_ids)) end
  if #entries > 0 then redis.call('ZREMRANGEBYRANK', ended_key, 0, #entries - 1) end
end

if not is_my_turn() then return 0 end
end_leases()
take_over_old_order()
start_scheduled()
end_waiting()
rise(order, now, RISES * job_limit)
balance_doorbells(order, doorbells_key, doorbell, 10 * job_limit)
prune_ended()
return requeued
