-- Included by the scripts that move jobs into or out of the order of waiting jobs. This file alone decides
-- which job starts next: the one with the lowest place, its score. By priority class, then by time of admission. A job
-- blamed for two or more worker deaths goes to the end of its class (`last_place`, called by reap.lua).
local CLASS = 3e15 -- microseconds; places stay exact below 2^53

local function place_of(priority_step, seconds, microseconds)
  return string.format('%.0f', tonumber(priority_step) * CLASS + tonumber(seconds) * 1e6 + tonumber(microseconds))
end

-- The place after all jobs of the same class that were admitted before `microseconds`.
local function last_place(place, microseconds)
  return string.format('%.0f', math.floor(tonumber(place) / CLASS) * CLASS + microseconds)
end

local function enter_order(order_key, job_id, place)
  redis.call('ZADD', order_key, place, job_id)
end

-- Remove the job that starts next and return its id; nil when none waits.
local function take_first(order_key)
  return redis.call('ZPOPMIN', order_key)[1]
end

-- Remove a job that is not claimed. Remove its doorbell too.
local function leave_order(order_key, doorbells_key, job_id)
  if redis.call('ZREM', order_key, job_id) == 1 and redis.call('LLEN', doorbells_key) > redis.call('ZCARD', order_key) then
    redis.call('RPOP', doorbells_key)
  end
end

-- Keep as many doorbells as waiting jobs. Doorbells already held by consumers are not counted, so extra ones may exist
-- until the next call.
local function balance_doorbells(order_key, doorbells_key, doorbell, limit)
  local waiting, doorbells = redis.call('ZCARD', order_key), redis.call('LLEN', doorbells_key)
  if doorbells > waiting then redis.call('LTRIM', doorbells_key, doorbells - waiting, -1) end
  for _ = 1, math.min(waiting - doorbells, limit) do redis.call('LPUSH', doorbells_key, doorbell) end
end
