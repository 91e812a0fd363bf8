-- Included by the scripts that move jobs into or out of the order of waiting jobs. This file and shares.lua alone decide
-- which job starts next: of the tenants that have a job of the first class, the one with the smallest counter; of its
-- jobs the one with the lowest place, by priority class, then by time of admission. A job blamed for two or more worker
-- deaths goes to the end of its class (`last_place`, called by reap.lua). With one tenant that is first in, first out.
-- include: shares
local CLASS = 3e15 -- microseconds; places stay exact below 2^53
local CLASS_OF = {high = 0, normal = 1, low = 2}

local function place_of(priority, seconds, microseconds)
  return string.format('%.0f', CLASS_OF[priority] * CLASS + tonumber(seconds) * 1e6 + tonumber(microseconds))
end

local function class_of(place) return math.floor(tonumber(place) / CLASS) end

-- The place after all jobs of the same class that were admitted before `microseconds`.
local function last_place(place, microseconds)
  return string.format('%.0f', class_of(place) * CLASS + microseconds)
end

-- The place of the same time in the class of a priority.
local function place_in_class(place, priority)
  return string.format('%.0f', CLASS_OF[priority] * CLASS + tonumber(place) % CLASS)
end

-- When a job rises by one class, as a place in its class: once it has waited `aging_seconds`, and again after half as long, so
-- that a `low` one is `high` before twice that time.
local function rise_of(order, place, priority)
  local class = class_of(place)
  return tonumber(place) + order.aging_seconds * (1 + (CLASS_OF[priority] - class) / 2) * 1e6
end

-- The tenant's waiting jobs. No colon is left in its name, so that no other model has the same key.
local function queue_of(order, tenant)
  local name = string.gsub(tenant, '[%%:]', {['%'] = '%25', [':'] = '%3A'})
  return order.prefix .. 'queue:' .. name .. ':' .. order.model
end

-- Put the tenant among those that have waiting jobs, or remove it. One that enters a class starts at the counter at which
-- the last job of the class was claimed, so that idleness is not saved up.
local function seat(order, tenant)
  local head = redis.call('ZRANGE', queue_of(order, tenant), 0, 0, 'WITHSCORES')
  if not head[1] then
    redis.call('ZREM', order.tenants, tenant)
    return
  end
  local class, score = class_of(head[2]), redis.call('ZSCORE', order.tenants, tenant)
  local shares = redis.call('HMGET', order.shares, 'served ' .. tenant, 'start ' .. class)
  local counter, start = tonumber(shares[1] or 0), tonumber(shares[2] or 0)
  local enters = not score or math.floor(tonumber(score) / SPAN) ~= class
  if enters and counter < start then
    counter = start
    redis.call('HSET', order.shares, 'served ' .. tenant, counter)
  end
  redis.call('ZADD', order.tenants, score_of(class, counter), tenant)
end

-- Let a job wait in the order; one that does already takes the new place.
local function enter_order(order, tenant, job_id, place, priority)
  redis.call('ZADD', queue_of(order, tenant), place, job_id)
  redis.call('ZADD', order.waiting, rise_of(order, place, priority), job_id)
  seat(order, tenant)
end

-- Remove the job that starts next. Returns its id, its tenant and its class; nil when none waits. The caller seats the
-- tenant.
local function take_first(order)
  while true do
    local tenant = redis.call('ZRANGE', order.tenants, 0, 0)[1]
    if not tenant then return nil end
    local first = redis.call('ZPOPMIN', queue_of(order, tenant))
    if first[1] then
      redis.call('ZREM', order.waiting, first[1])
      return first[1], tenant, class_of(first[2])
    end
    redis.call('ZREM', order.tenants, tenant) -- Redis has lost the jobs
  end
end

-- Remove a job that is not claimed. Remove its doorbell too.
local function leave_order(order, doorbells_key, tenant, job_id)
  if redis.call('ZREM', order.waiting, job_id) == 0 then return end
  redis.call('ZREM', queue_of(order, tenant), job_id)
  seat(order, tenant)
  if redis.call('LLEN', doorbells_key) > redis.call('ZCARD', order.waiting) then redis.call('RPOP', doorbells_key) end
end

-- Let the jobs of a class rise that have waited for long, those that are due first. Returns how many.
local function rise_from(order, class, now, limit)
  local tenants, least = {}, class * CLASS
  local due = redis.call('ZRANGEBYSCORE', order.waiting, least, least + math.floor(now * 1e6), 'LIMIT', 0, limit)
  for _, job_id in ipairs(due) do
    local job_key = order.prefix .. 'job:' .. job_id
    local old_place, priority, tenant = unpack(redis.call('HMGET', job_key, 'place', 'priority', 'tenant'))
    if old_place then
      local place = string.format('%.0f', tonumber(old_place) - CLASS)
      redis.call('HSET', job_key, 'place', place)
      redis.call('ZADD', queue_of(order, tenant), place, job_id)
      redis.call('ZADD', order.waiting, rise_of(order, place, priority), job_id)
      tenants[tenant] = true
    else
      redis.call('ZREM', order.waiting, job_id) -- Redis has lost the record
    end
  end
  for tenant in pairs(tenants) do seat(order, tenant) end
  return #due
end

local function rise(order, now, limit)
  local normal = rise_from(order, CLASS_OF.normal, now, limit)
  rise_from(order, CLASS_OF.low, now, limit - normal)
end

-- Keep as many doorbells as waiting jobs. Doorbells already held by consumers are not counted, so extra ones may exist
-- until the next call.
local function balance_doorbells(order, doorbells_key, doorbell, limit)
  local waiting, doorbells = redis.call('ZCARD', order.waiting), redis.call('LLEN', doorbells_key)
  if doorbells > waiting then redis.call('LTRIM', doorbells_key, doorbells - waiting, -1) end
  for _ = 1, math.min(waiting - doorbells, limit) do redis.call('LPUSH', doorbells_key, doorbell) end
end
