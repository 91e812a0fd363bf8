-- Included, after messages, by reap: a broker's list loses messages of jobs that wait no more. Of those at its end, so that
-- the next message is one that counts; and of all others, a part in each turn, once there are `limit` too many.
local function trim_end(list_key, queued_key, limit)
  local messages = redis.call('LRANGE', list_key, -limit, -1)
  local first_void = #messages + 1
  while first_void > 1 and is_void(messages[first_void - 1], queued_key) do first_void = first_void - 1 end
  redis.call('LTRIM', list_key, 0, first_void - #messages - 2)
end

local function trim_part(list_key, queued_key, first, last)
  local found = false
  for at, message in ipairs(redis.call('LRANGE', list_key, first, last)) do
    if is_void(message, queued_key) then
      redis.call('LSET', list_key, first + at - 1, '')
      found = true
    end
  end
  if found then redis.call('LREM', list_key, 0, '') end
end

local function trim(list_key, queued_key, waiting, limit, turn)
  local length = redis.call('LLEN', list_key)
  if length > 0 and is_void(redis.call('LINDEX', list_key, -1), queued_key) then
    trim_end(list_key, queued_key, limit)
  elseif length > waiting + limit then
    local first = turn % math.ceil(length / limit) * limit
    trim_part(list_key, queued_key, first, first + limit - 1)
  end
end
