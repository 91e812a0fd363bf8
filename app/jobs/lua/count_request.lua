-- Count a request of an API key, unless its minute is full, and return what is left of its minute.
-- KEYS: -
-- ARGV: owner, '1' to count a request, '0' to read
-- Returns {seconds until a request may be sent ('0': it was counted, or read), then of requests and of tokens: limit, what
--         is left, seconds until all of it is left}; a limit of -1: there is none
-- include: limits
local owner = ARGV[1]
local limits = limits_of(owner) or {}
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6

local function left_of(name, limit)
  if not limit then return -1, 0, '0' end
  local level, rate = level_of(owner, name, limit, now)
  return limit, math.max(0, math.floor(limit - level)), string.format('%.3f', level / rate)
end

local wait, limit = 0, limits.requests_per_minute
if limit and ARGV[2] == '1' then
  local level, rate = level_of(owner, 'requests', limit, now)
  if level + 1 > limit then wait = (level + 1 - limit) / rate else fill(owner, 'requests', level + 1, now) end
end
local state = {string.format('%.3f', wait)}
for _, value in ipairs({left_of('requests', limit)}) do state[#state + 1] = value end
for _, value in ipairs({left_of('tokens', limits.tokens_per_minute)}) do state[#state + 1] = value end
return state
