-- Included, after messages, by reap: a broker's list loses messages of jobs that wait no more. Of those before the next one
-- that counts, so that this is the list's last; and of all others, a part in each turn, once there are `limit` too many.
local function drop_void(list_key, queued_key, first, last)
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
  if length == 0 then return end
  if is_void(redis.call('LINDEX', list_key, -1), queued_key) then
    local first = math.max(0, length - limit)
    drop_void(list_key, queued_key, first, length - 1)
  elseif length > waiting + limit then
    local first = turn % math.ceil(length / limit) * limit
    drop_void(list_key, queued_key, first, first + limit - 1)
  end
end
