-- Included by the scripts that count what an API key uses. The limits stand in the key's record (`app.access.key_store`),
-- so that a changed one counts at once, everywhere. What is counted of the key with the id <owner>: its jobs that have
-- not ended (active_jobs.lua), and, in the hash `llm:limits:<owner>`, what is in its buckets, when that was (`<name>_at`), and
-- the tokens of its day and month.
-- A bucket holds what a minute allows and drains evenly: it is what was used lately. docs/decisions/0067 has the reasons.
-- include: active_jobs
local LIMITS = {'requests_per_minute', 'tokens_per_minute', 'concurrent_jobs', 'waiting_jobs', 'tokens_per_day',
  'tokens_per_month'}
local DAY = 86400 -- seconds
local COUNTS_KEPT = 45 * DAY -- longer than a month

local function counts_key(owner) return 'llm:limits:' .. owner end

-- The limits of a key by name; nil where it has none.
local function limits_of(owner)
  local limits, any = {}, false
  for position, value in ipairs(redis.call('HMGET', 'llm:api-key:' .. owner, unpack(LIMITS))) do
    limits[LIMITS[position]] = tonumber(value or nil)
    any = any or limits[LIMITS[position]] ~= nil
  end
  return any and limits or nil
end

-- What is in a bucket now, and what drains from it in a second.
local function level_of(owner, name, limit, now)
  local state = redis.call('HMGET', counts_key(owner), name, name .. '_at')
  local rate = limit / 60
  return math.max(0, tonumber(state[1] or 0) - rate * math.max(0, now - tonumber(state[2] or now))), rate
end

local function fill(owner, name, level, now)
  redis.call('HSET', counts_key(owner), name, level, name .. '_at', string.format('%.6f', now))
  redis.call('EXPIRE', counts_key(owner), COUNTS_KEPT)
end

-- Months since the year 0, and Unix seconds of the next one. UTC; "chrono-Compatible Low-Level Date Algorithms", H. Hinnant.
local function month_of(now)
  local days = math.floor(now / DAY) + 719468
  local era = math.floor(days / 146097)
  local of_era = days - era * 146097
  local year = math.floor((of_era - math.floor(of_era / 1460) + math.floor(of_era / 36524) - math.floor(of_era / 146096)) / 365)
  local of_year = of_era - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  local from_march = math.floor((5 * of_year + 2) / 153)
  local civil_year = year + era * 400 + 1 -- of a February
  local is_leap = civil_year % 4 == 0 and (civil_year % 100 ~= 0 or civil_year % 400 == 0)
  local ends = from_march == 11 and (is_leap and 366 or 365) or math.floor((153 * (from_march + 1) + 2) / 5)
  return (year + era * 400) * 12 + from_march, (days - of_year + ends - 719468) * DAY
end

-- The periods in which tokens are counted: name of the limit, field of the counter, the present period, when it ends.
local function periods(now)
  local day = math.floor(now / DAY)
  local month, next_month = month_of(now)
  return {{'tokens_per_day', 'day', day, (day + 1) * DAY}, {'tokens_per_month', 'month', month, next_month}}
end

-- The tokens of a period; 0 where those that were counted are of an earlier one.
local function used_in(owner, field, period)
  local state = redis.call('HMGET', counts_key(owner), field, field .. '_tokens')
  return tonumber(state[1] or -1) == period and tonumber(state[2]) or 0
end

-- Return which limit a new job exceeds: {name, number, seconds until it may be admitted}, -1: until jobs have ended; nil: none.
-- share: of what may run or wait at once, and of a minute, that these jobs may take.
local function exceeded(owner, limits, tokens, share, now)
  local function part(limit) return math.max(1, math.floor(limit * share)) end
  if limits.concurrent_jobs and redis.call('ZCARD', active_key(owner)) >= part(limits.concurrent_jobs) then
    return {'concurrent_jobs', limits.concurrent_jobs, -1}
  end
  if limits.waiting_jobs and redis.call('ZCOUNT', active_key(owner), 0, 0) >= part(limits.waiting_jobs) then
    return {'waiting_jobs', limits.waiting_jobs, -1}
  end
  local limit = limits.tokens_per_minute
  if limit then
    local level, rate = level_of(owner, 'tokens', limit, now)
    local above = level + math.min(tokens, part(limit)) - part(limit)
    if above > 0 then return {'tokens_per_minute', limit, math.ceil(above / rate)} end
  end
  for _, period in ipairs(periods(now)) do
    limit = limits[period[1]]
    if limit and used_in(owner, period[2], period[3]) + math.min(tokens, limit) > limit then
      return {period[1], limit, math.ceil(period[4] - now)}
    end
  end
end

-- Count a job that is admitted, with the tokens that it should take. What was counted stands in its record.
local function count_admitted(job_key, job_id, owner, limits, tokens, now)
  redis.call('ZADD', active_key(owner), 0, job_id)
  if limits.tokens_per_minute then
    fill(owner, 'tokens', level_of(owner, 'tokens', limits.tokens_per_minute, now) + tokens, now)
  end
  redis.call('HSET', job_key, 'counted_tokens', tokens, 'counted_at', string.format('%.6f', now))
  for _, period in ipairs(periods(now)) do
    local name, field, present = unpack(period)
    if limits[name] then
      redis.call('HSET', counts_key(owner), field, present, field .. '_tokens', used_in(owner, field, present) + tokens)
      redis.call('EXPIRE', counts_key(owner), COUNTS_KEPT)
    end
  end
end

-- Replace the estimate by what the job took, once it has ended. Of what has drained of the estimate nothing is given back.
-- In a new day or month what is counted of it there is what it took beyond its estimate.
-- record: of the job, with what was counted when it was admitted, if its key had limits then.
local function settle_limits(job_id, record, tokens, now)
  if not record.counted_tokens then return end
  local owner = record.owner
  redis.call('ZREM', active_key(owner), job_id)
  local counted_at = tonumber(record.counted_at)
  local difference, since = tokens - tonumber(record.counted_tokens), now - counted_at
  local limits = limits_of(owner)
  if not limits or difference == 0 then return end
  if limits.tokens_per_minute then
    local level, rate = level_of(owner, 'tokens', limits.tokens_per_minute, now)
    local left = difference < 0 and math.min(0, difference + rate * since) or difference
    fill(owner, 'tokens', math.max(0, level + left), now)
  end
  local then_periods = periods(counted_at)
  for position, period in ipairs(periods(now)) do
    local name, field, present = unpack(period)
    if limits[name] and (difference > 0 or then_periods[position][3] == present) then
      local used = math.max(0, used_in(owner, field, present) + difference)
      redis.call('HSET', counts_key(owner), field, present, field .. '_tokens', used)
    end
  end
end
