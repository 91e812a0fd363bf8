-- Included, after messages, by the scripts that give a job another message than its first: it goes into the broker's list
-- where the job's place in the queue is, behind the newest one or among those about to be taken.
local MOST_PASSED = 100 -- messages to look for the place among; whoever belongs further back goes before them

local function put_message(list_key, queued_key, place, message)
  local newest = redis.call('LINDEX', list_key, 0)
  local newest_place = newest and place_of(newest, queued_key)
  if newest_place and newest_place < place then
    redis.call('LPUSH', list_key, message)
    return
  end
  local passed = {}
  while #passed < MOST_PASSED do
    local next_message = redis.call('LINDEX', list_key, -1)
    local next_place = next_message and place_of(next_message, queued_key)
    if not next_place or next_place > place then break end
    passed[#passed + 1] = redis.call('RPOP', list_key)
  end
  redis.call('RPUSH', list_key, message)
  for at = #passed, 1, -1 do redis.call('RPUSH', list_key, passed[at]) end
end
