-- A worker takes the first job of the order of waiting jobs: attempt + 1, a new fencing token and a lease, and its tenant
-- is charged. A job that has waited longer than it may is left to the reaper, which ends it.
-- KEYS: running, expiring, the worker's last claim
-- ARGV: order, worker id, lease_seconds, nonce of this call
-- Returns nil when no job waits, or {id, request, token, attempt, created_at, started_at, followed, losses, ran_seconds,
--         published tokens, owner, tenant, trace parent}
-- include: active_jobs
-- include: add_event
-- include: notify
-- include: order
local MOST_SKIPPED = 100 -- at most this many deleted or expired jobs are skipped per claim
local CLAIM_KEPT_SECONDS = 60 -- beyond every repetition of a call whose reply was lost
local order = order_of(ARGV[1])

local function read(job_id)
  return redis.call('HMGET', order.prefix .. 'job:' .. job_id, 'status', 'request', 'created_at', 'followed', 'started_at',
    'claim', 'token', 'attempt', 'expires_at', 'losses', 'ran', 'published', 'owner', 'tenant', 'kind', 'weight',
    'prompt_estimate', 'charged', 'trace_parent', 'counted_tokens', 'listeners')
end

local function taken(job_id, record, token, attempt, started_at)
  return {job_id, record[2], token, attempt, record[3], started_at, record[4] or '0', tonumber(record[10] or 0),
    record[11] or '0', tonumber(record[12] or 0), record[13], record[14] or record[13], record[19] or ''}
end

-- The same call once more, after its first reply was lost.
local function repeated()
  local nonce, job_id = string.match(redis.call('GET', KEYS[3]) or '', '^(%S+) (.*)$')
  local record = nonce == ARGV[4] and read(job_id)
  if record and record[1] == 'processing' and record[6] == ARGV[4] then
    return taken(job_id, record, tonumber(record[7]), tonumber(record[8]), record[5])
  end
end

local function take(job_id, record, tenant, class, now)
  local job_key = order.prefix .. 'job:' .. job_id
  local lease_until = tonumber(now) + tonumber(ARGV[3])
  local token, attempt = tonumber(record[7] or 0) + 1, tonumber(record[8] or 0) + 1
  local started_at = record[5] or now
  local charged = charge(order, tenant, class, record[15], record[16], record[17], record[12], record[18])
  redis.call('HSET', job_key, 'token', token, 'attempt', attempt, 'status', 'processing', 'worker', ARGV[2],
    'claim', ARGV[4], 'claimed_at', now, 'lease_until', lease_until, 'started_at', started_at, 'charged', charged)
  redis.call('SET', KEYS[3], ARGV[4] .. ' ' .. job_id, 'EX', CLAIM_KEPT_SECONDS)
  redis.call('ZADD', KEYS[1], lease_until, job_id)
  if record[20] then note_running(record[13], job_id) end
  local is_followed, event = record[4] == '1', '{"attempt":' .. attempt .. '}'
  local notification = add_event(order.prefix .. 'events:' .. job_id, job_id, is_followed, 'started', event)
  if is_followed then notify(record[21], notification) end
  return taken(job_id, record, token, attempt, started_at)
end

local again = repeated()
if again then return again end
local time = redis.call('TIME')
local now = time[1] .. string.format('.%06d', time[2])
for _ = 1, MOST_SKIPPED do
  local job_id, tenant, class = take_first(order)
  if not job_id then return nil end
  local record = read(job_id)
  local has_expired = record[9] and not record[5] and tonumber(record[9]) <= tonumber(now)
  if record[9] and not has_expired then redis.call('ZREM', KEYS[2], job_id) end
  local is_taken = record[1] == 'queued' and not has_expired
  local claim = is_taken and take(job_id, record, tenant, class, now)
  seat(order, tenant)
  if is_taken then return claim end
end
return nil
